plan shop -n dev -f testdata/namespaces --to v3 --diff dyff
