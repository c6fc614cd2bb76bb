package cli

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func TestMasked(t *testing.T) {
	secret := func(data, annotations map[string]any) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "v1", "kind": "Secret", "metadata": map[string]any{"name": "s", "annotations": annotations}, "data": data,
		}}
	}
	before := secret(map[string]any{"same": "YQ==", "other": "Yg==", "gone": "Yw=="}, map[string]any{lastApplied: "{}", "team": "a"})
	after := secret(map[string]any{"same": "YQ==", "other": "eA==", "new": "eQ=="}, map[string]any{lastApplied: "{x}", "team": "b"})
	gotBefore, gotAfter := masked(before, after)
	wantBefore := secret(map[string]any{"same": "***", "other": "*** (before)", "gone": "***"}, map[string]any{lastApplied: "*** (before)", "team": "a"})
	wantAfter := secret(map[string]any{"same": "***", "other": "*** (after)", "new": "***"}, map[string]any{lastApplied: "*** (after)", "team": "b"})
	if diff := cmp.Diff([]any{wantBefore.Object, wantAfter.Object}, []any{gotBefore.Object, gotAfter.Object}); diff != "" {
		t.Errorf("masked (-want +got):\n%s", diff)
	}
	if _, made := masked(nil, after); made.Object["data"].(map[string]any)["new"] != "***" || after.Object["data"].(map[string]any)["new"] != "eQ==" {
		t.Error("a Secret that is made is not masked, or the given one was changed")
	}
	plain := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "data": map[string]any{"a": "b"}}}
	if _, got := masked(nil, plain); got != plain {
		t.Error("what is no Secret is masked")
	}
}
