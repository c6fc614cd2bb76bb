plan -f ../../examples/adopt --from v1 --to v2
