plan -k testdata/kustomized --from v1 --to v2
