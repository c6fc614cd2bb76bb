package gitsync

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestReasonsHideSecrets: the API server quotes a value that it can not read; a Secret's must not reach conditions and events.
func TestReasonsHideSecrets(t *testing.T) {
	quoting := &apierrors.StatusError{ErrStatus: metav1.Status{
		Message: "failed to create typed patch object: .stringData.token: expected string, got &value.valueUnstructured{Value:12345}",
	}}
	for kind, hidden := range map[string]bool{"Secret": true, "ConfigMap": false} {
		object := &unstructured.Unstructured{Object: map[string]any{"kind": kind}}
		got := publicReason(object, quoting)
		if leaks := strings.Contains(got, "12345"); leaks == hidden {
			t.Errorf("%s: %q", kind, got)
		}
	}
}
