plan -f testdata/namespaces --to v3
