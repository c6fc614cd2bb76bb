plan shop -n test -f testdata/namespaces
