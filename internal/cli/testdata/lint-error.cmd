lint -f ../lint/testdata/gate-blind.bad.yaml
