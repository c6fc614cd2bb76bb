package gitsync

import (
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// TestReasonsHideSecrets: the API server quotes what it can not read; a Secret's must not reach conditions and events.
func TestReasonsHideSecrets(t *testing.T) {
	for _, message := range []string{
		"failed to create typed patch object: .stringData.token: expected string, got &value.valueUnstructured{Value:12345}",
		"failed to create typed patch object (ns/s; /v1, Kind=Secret): .data: expected map, got &{12345}",
		`Secret "s" is invalid: data[12345/+]: Invalid value: "12345/+": a valid config key must consist of alphanumeric characters`,
	} {
		quoting := &apierrors.StatusError{ErrStatus: metav1.Status{Message: message}}
		for kind, hidden := range map[string]bool{"Secret": true, "ConfigMap": false} {
			object := &unstructured.Unstructured{Object: map[string]any{"kind": kind}}
			got := publicReason(object, quoting)
			if leaks := strings.Contains(got, "12345"); leaks == hidden {
				t.Errorf("%s: %q", kind, got)
			}
		}
	}
}
