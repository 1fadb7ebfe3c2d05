// The folders of src/ from the top down (docs/architecture.md). A module imports only from those below it.
const layers = [
  ['bench'],
  ['demo'],
  ['cli'],
  ['api', 'lab', 'simulation'],
  ['controller'],
  ['agent'],
  ['transport'],
  ['vmm'],
  ['network'],
  ['store'],
  ['archive'],
  ['protocol'],
  ['native'],
  ['unixctl', 'openflow'],
  ['qmp', 'ovsdb', 'pcapng'],
  ['errors'],
];

const upward = layers.flatMap((names, level) => {
  const above = layers.slice(0, level).flat();
  return names.map((name) => ({
    name: `${name}-imports-only-from-below`,
    severity: 'error',
    from: { path: `^src/${name}/` },
    to: { path: `^src/(${[...above, ...names.filter((other) => other !== name)].join('|') || '$^'})/` },
  }));
});

module.exports = {
  forbidden: [
    ...upward,
    {
      name: 'no-circular',
      severity: 'error',
      from: {},
      to: { circular: true, viaOnly: { dependencyTypesNot: ['type-only'] } },
    },
    {
      name: 'protocol-clients-know-nothing-of-staghorn',
      severity: 'error',
      from: {
        path: '^src/(unixctl|openflow|qmp|ovsdb|pcapng)/([^.]|[.](?!test))*[.]ts$',
        pathNot: '[.]test[.]ts$',
      },
      to: { path: '^src/', pathNot: '^src/(unixctl|openflow|qmp|ovsdb|pcapng)/' },
    },
    {
      name: 'controller-does-not-reach-into-the-agent',
      severity: 'error',
      from: { path: '^src/controller/' },
      to: { path: '^src/(agent|vmm|network|native|unixctl|openflow|qmp|ovsdb)/' },
    },
    {
      name: 'src-does-not-import-tests',
      severity: 'error',
      from: { path: '^src/', pathNot: '[.]test[.]ts$' },
      to: { path: '^test/' },
    },
  ],
  options: {
    doNotFollow: { path: 'node_modules' },
    tsConfig: { fileName: 'tsconfig.json' },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ['exports'], conditionNames: ['import', 'node', 'types'] },
  },
};
