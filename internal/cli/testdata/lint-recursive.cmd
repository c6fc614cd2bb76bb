lint -R -f testdata/kustomized
