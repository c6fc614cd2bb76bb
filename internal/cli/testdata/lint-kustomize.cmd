lint -k testdata/kustomized
