plan -f testdata/shop -o json --from v1
