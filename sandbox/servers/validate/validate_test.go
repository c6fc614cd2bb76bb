package validate

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	networking "istio.io/client-go/pkg/apis/networking/v1"
	"istio.io/istio/pkg/config"
	"istio.io/istio/pkg/config/schema/gvk"
	"istio.io/istio/pkg/config/validation"
	"sigs.k8s.io/yaml"
)

const goldens = "../../../internal/mesh/testdata"

// TestGoldens: istiod's admission accepts every object of the renderer's goldens.
func TestGoldens(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(goldens, "*.out.yaml"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d goldens in %s, %v", len(files), goldens, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".out.yaml"), func(t *testing.T) {
			data, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, document := range bytes.Split(data, []byte("\n---\n")) {
				if err := admit(document); err != nil {
					t.Errorf("%v in\n%s", err, document)
				}
			}
		})
	}
}

// TestRefuses: the check itself can fail.
func TestRefuses(t *testing.T) {
	const both = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: reviews, namespace: bookinfo}
spec:
  hosts: [reviews]
  http:
  - route: [{destination: {host: reviews}}]
    mirror: {host: audit}
    mirrors: [{destination: {host: reviews}}]
`
	if err := admit([]byte(both)); err == nil || !strings.Contains(err.Error(), "mirror and mirrors") {
		t.Errorf("mirror beside mirrors: %v", err)
	}
}

// admit validates one object as istiod's admission webhook does.
func admit(document []byte) error {
	data, err := yaml.YAMLToJSON(document)
	if err != nil {
		return err
	}
	var kind struct{ Kind string }
	if err := json.Unmarshal(data, &kind); err != nil {
		return err
	}
	if kind.Kind == "DestinationRule" {
		var rule networking.DestinationRule
		if err := json.Unmarshal(data, &rule); err != nil {
			return err
		}
		_, err := validation.ValidateDestinationRule(config.Config{
			Meta: config.Meta{GroupVersionKind: gvk.DestinationRule, Name: rule.Name, Namespace: rule.Namespace}, Spec: &rule.Spec,
		})
		return err
	}
	var vs networking.VirtualService
	if err := json.Unmarshal(data, &vs); err != nil {
		return err
	}
	_, err = validation.ValidateVirtualService(config.Config{
		Meta: config.Meta{GroupVersionKind: gvk.VirtualService, Name: vs.Name, Namespace: vs.Namespace}, Spec: &vs.Spec,
	})
	return err
}
