diff -f -
< testdata/separator
