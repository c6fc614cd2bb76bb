package manifest

import (
	"strings"
	"testing"
)

// What a file's documents come to together is bounded: each of them may repeat a long text by aliases.
func TestBounded(t *testing.T) {
	large := "---\napiVersion: v1\nkind: A\na: &a " + strings.Repeat("x", 700) + "\nb: [" + strings.Repeat("*a,", 100) + "]\n"
	objects, err := read("x.yaml", []byte(strings.Repeat(large, 15)), 640_000)
	if err == nil || !strings.Contains(err.Error(), "x.yaml:46:1: with its aliases expanded, the file is longer than 640000 bytes") || len(objects) != 9 {
		t.Errorf("%d objects, error %v; want the file refused where it becomes too long", len(objects), err)
	}
}
