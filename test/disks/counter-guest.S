# A guest without a system: it counts, and keeps the count on every hard disk that the BIOS knows.
# At 0x8000 the count, at 0x8004 a bit for each disk that did not hold it, at 0x8008 BIOS errors, at 0x800c disks.
        .code16
        .globl _start
_start: xorw %ax, %ax
        movw %ax, %ds
        movw %ax, %es
        movw %ax, %ss
        movw $0x7000, %sp
        sti
        movl $0, 0x8000
        movl $0, 0x8004
        movl $0, 0x8008
        movzbl 0x475, %eax
        movl %eax, 0x800c
round:  movb $0x80, %dl
read:   call last
        jae change
        movb $0x42, %ah
        call disk
        movl 0x9000, %eax
        cmpl 0x8000, %eax
        je same
        movb %dl, %cl
        andb $0x1f, %cl
        movl $1, %eax
        shll %cl, %eax
        orl %eax, 0x8004
same:   incb %dl
        jmp read
change: incl 0x8000
        movl 0x8000, %eax
        movl %eax, 0x9000
        movb $0x80, %dl
write:  call last
        jae idle
        movw $0x4300, %ax
        call disk
        incb %dl
        jmp write
idle:   sti
        hlt
        jmp round
last:   movb %dl, %al
        subb $0x80, %al
        cmpb 0x475, %al
        ret
disk:   movw $packet, %si
        pushw %dx
        int $0x13
        popw %dx
        jnc fine
        incl 0x8008
fine:   ret
packet: .byte 16, 0
        .word 1
        .word 0x9000, 0
        .quad 1
        .org 510
        .word 0xaa55
