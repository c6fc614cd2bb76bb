package apitest

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"sluice.dev/sluice/internal/lint"
	"sluice.dev/sluice/internal/manifest"
)

// lintAgrees: what `kubectl sluice lint` refuses offline is what the API server refuses, field by field. It is asked of each object
// whose creation a test tries.
func lintAgrees(t *testing.T, object *unstructured.Unstructured, refusal error) {
	t.Helper()
	raw, err := object.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	objects, err := manifest.Read("object.json", raw)
	if err != nil || len(objects) != 1 {
		t.Fatalf("%d objects, %v", len(objects), err)
	}
	findings, err := lint.Refusals(t.Context(), objects[0])
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]bool{}
	for _, f := range findings {
		found[f.Path] = true
	}
	var status *apierrors.StatusError
	if !errors.As(refusal, &status) || status.ErrStatus.Details == nil || !apierrors.IsInvalid(refusal) {
		if (refusal != nil) != (len(findings) > 0) {
			t.Errorf("the API server says %v, lint %v", refusal, findings)
		}
		return
	}
	refused := map[string]bool{}
	for _, cause := range status.ErrStatus.Details.Causes {
		if cause.Field != noField {
			refused[cause.Field] = true
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Keys(refused)), slices.Sorted(maps.Keys(found))); diff != "" {
		t.Errorf("lint refuses other fields than the API server (-server +lint):\n%s%v\n%v", diff, refusal, findings)
	}
}
