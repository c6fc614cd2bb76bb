package main

import (
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

func TestCheck(t *testing.T) {
	long := &fstest.MapFile{Data: []byte(strings.Repeat("\n", maxLines))}
	short := &fstest.MapFile{Data: []byte(strings.Repeat("\n", maxLines-1))}
	tree := fstest.MapFS{
		"good/doc.go":                  short,
		"good/zz_generated.go":         long,
		"good/testdata/long.go":        long,
		"bin/long.go":                  long,
		".cache/long.go":               long,
		"bad/long.go":                  long,
		"config/crd/small.yaml":        long,
		"config/crd/big.yaml":          {Data: make([]byte, maxCRDBytes+1)},
		"config/rbac/big.yaml":         {Data: make([]byte, maxCRDBytes+1)},
		"good/deeper/package/other.go": short,
	}
	got, err := check(tree)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"bad/long.go: 450 lines are not below 450: split it by what it does",
		"bad: the package has no doc.go: say there what it is for and what it must not know",
		"config/crd/big.yaml: 200001 bytes are more than 200000: shorten descriptions in api/v1",
		"good/deeper/package: the package has no doc.go: say there what it is for and what it must not know",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
