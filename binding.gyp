{
  "targets": [
    {
      "target_name": "staghorn",
      "sources": ["<!@(ls native/*.cc native/*/*.cc)"],
      "include_dirs": ["native", "<!(node -p \"require('node-addon-api').include_dir\")"],
      "defines": ["NAPI_VERSION=9", "NODE_ADDON_API_DISABLE_DEPRECATED", "NAPI_CPP_EXCEPTIONS"],
      "libraries": ["-l:libzstd.a"],
      "ldflags": ["-Wl,--exclude-libs,libzstd.a"],
      "cflags_cc": ["-std=c++17", "-Wall", "-Wextra", "-Wno-missing-field-initializers", "-fexceptions", "-O2"],
      "cflags_cc!": ["-fno-exceptions", "-fno-rtti"]
    }
  ]
}
