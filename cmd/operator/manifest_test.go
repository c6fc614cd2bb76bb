package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/yaml"
)

// TestManifest: config/manager runs this program with flags that it knows, on the ports that it says, and waits for its end.
func TestManifest(t *testing.T) {
	content, err := os.ReadFile("../../config/manager/manager.yaml")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := bytes.Cut(content, []byte("\n---\n"))
	var deployment appsv1.Deployment
	if err := yaml.UnmarshalStrict(first, &deployment); err != nil {
		t.Fatal(err)
	}
	pod := deployment.Spec.Template.Spec
	container := pod.Containers[0]
	f, err := parseFlags(container.Args, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if !f.leaderElect || f.prometheusURL == "" {
		t.Errorf("flags %v: want --leader-elect and --prometheus-url", container.Args)
	}
	opened := map[string]string{"metrics": f.metricsAddress, "health": f.healthAddress, "hooks": f.hookAddress}
	for _, port := range container.Ports {
		if want := fmt.Sprintf(":%d", port.ContainerPort); opened[port.Name] != want {
			t.Errorf("port %s is %q by the flags, want %q", port.Name, opened[port.Name], want)
		}
		delete(opened, port.Name)
	}
	if len(opened) > 0 {
		t.Errorf("%v are opened and not declared", opened)
	}
	if grace := time.Duration(*pod.TerminationGracePeriodSeconds) * time.Second; grace <= shutdownTimeout {
		t.Errorf("terminationGracePeriodSeconds is %s, the operator may take %s", grace, shutdownTimeout)
	}
}
