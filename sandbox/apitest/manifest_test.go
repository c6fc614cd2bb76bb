package apitest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"
)

const (
	namespace = "bookinfo"
	// noField is the field of what the API server adds to an error of type: that it checked no rules, and the format.
	noField = "<nil>"
)

var (
	rollouts = schema.GroupVersionResource{Group: "sluice.dev", Version: "v1", Resource: "rollouts"}
	gitsyncs = schema.GroupVersionResource{Group: "sluice.dev", Version: "v1", Resource: "gitsyncs"}
)

// rule is a validation rule, with a value that it accepts and one that it refuses.
// The values are merge patches (RFC 7396) of a valid object's spec, in YAML.
type rule struct {
	name    string
	accepts string
	refuses string
	// field and message of the only error: the message contains the text.
	field   string
	message string
}

// checkRules dry-runs the creation of both objects of each rule.
func checkRules(t *testing.T, resource schema.GroupVersionResource, base string, rules []rule) {
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			t.Parallel()
			if rule.accepts != "" {
				if err := dryRun(t, resource, patched(t, base, rule.accepts)); err != nil {
					t.Errorf("refused %s: %v", rule.accepts, err)
				}
			}
			err := dryRun(t, resource, patched(t, base, rule.refuses))
			if err == nil {
				t.Fatalf("accepted %s", rule.refuses)
			}
			checkCause(t, err, rule.field, rule.message)
		})
	}
}

// checkCause asks for one error only: a person should read what is wrong, and nothing that follows from it.
func checkCause(t *testing.T, err error, field, message string) {
	t.Helper()
	var status *apierrors.StatusError
	if !errors.As(err, &status) || status.ErrStatus.Details == nil {
		t.Fatalf("no field error: %v", err)
	}
	causes := slices.DeleteFunc(status.ErrStatus.Details.Causes, func(cause metav1.StatusCause) bool {
		return cause.Field == noField
	})
	if len(causes) != 1 {
		t.Errorf("%d errors, want 1: %v", len(causes), err)
	}
	for _, cause := range causes {
		if cause.Field == field && strings.Contains(cause.Message, message) {
			return
		}
	}
	t.Errorf("no error of %s with %q in %v", field, message, causes)
}

func dryRun(t *testing.T, resource schema.GroupVersionResource, object *unstructured.Unstructured) error {
	t.Helper()
	// Strict: a misspelt field in a test's own patch must not pass for a value that is accepted.
	options := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict}
	_, err := client.Resource(resource).Namespace(namespace).Create(t.Context(), object, options)
	lintAgrees(t, object, err)
	return err
}

// store creates an object until the test ends.
func store(t *testing.T, space string, resource schema.GroupVersionResource, object *unstructured.Unstructured) *unstructured.Unstructured {
	t.Helper()
	stored, err := client.Resource(resource).Namespace(space).Create(t.Context(), object, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := client.Resource(resource).Namespace(space).Delete(context.Background(), object.GetName(), metav1.DeleteOptions{})
		if err != nil {
			t.Error(err)
		}
	})
	return stored
}

// patched returns the base object with its spec merged with a patch.
func patched(t *testing.T, base, patch string) *unstructured.Unstructured {
	t.Helper()
	object, spec := decode(t, base), decode(t, patch)
	object["spec"] = merge(object["spec"], spec)
	return &unstructured.Unstructured{Object: object}
}

func decode(t *testing.T, text string) map[string]any {
	t.Helper()
	var object map[string]any
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return object
}

// merge is a JSON merge patch: maps are merged, null removes, anything else replaces.
func merge(target, patch any) any {
	changes, isMap := patch.(map[string]any)
	if !isMap {
		return patch
	}
	merged, isMap := target.(map[string]any)
	if !isMap {
		merged = map[string]any{}
	}
	for key, change := range changes {
		if change == nil {
			delete(merged, key)
			continue
		}
		merged[key] = merge(merged[key], change)
	}
	return merged
}
