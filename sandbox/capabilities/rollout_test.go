package capabilities

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
)

// rollouts of the namespace.
func (s *stage) rollouts(t *testing.T) []v1.Rollout {
	t.Helper()
	var list v1.RolloutList
	if err := s.cluster.Client.List(t.Context(), &list, client.InNamespace(s.Namespace)); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// waitRollout waits until a Rollout meets a condition.
func (s *stage) waitRollout(t *testing.T, name, what string, meets func(*v1.Rollout) bool) *v1.Rollout {
	t.Helper()
	rollout := &v1.Rollout{}
	s.eventually(t, fmt.Sprintf("Rollout %s is %s", name, what), func() (bool, string) {
		if err := s.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: s.Namespace, Name: name}, rollout); err != nil {
			return false, err.Error()
		}
		status := rollout.Status
		instead := fmt.Sprintf("it is %s %s: %s", status.Phase, status.Reason, status.Message)
		return status.ObservedGeneration == rollout.Generation && meets(rollout), instead
	})
	return rollout
}

// waitHealthy waits until a version serves all traffic and nothing is in flight.
func (s *stage) waitHealthy(t *testing.T, name, version string) *v1.Rollout {
	t.Helper()
	return s.waitRollout(t, name, "Healthy on "+version, func(r *v1.Rollout) bool {
		return r.Status.Phase == v1.PhaseHealthy && r.Status.Stable == version
	})
}

// waitRolledBack waits until a run was taken back for a reason, one of api/v1's.
func (s *stage) waitRolledBack(t *testing.T, name, reason string) *v1.Rollout {
	t.Helper()
	return s.waitRollout(t, name, "RolledBack for "+reason, func(r *v1.Rollout) bool {
		return r.Status.Phase == v1.PhaseRolledBack && r.Status.Reason == reason
	})
}

// waitStep waits until a step's traffic is applied.
func (s *stage) waitStep(t *testing.T, name, step string) *v1.Rollout {
	t.Helper()
	return s.waitRollout(t, name, "in step "+step, func(r *v1.Rollout) bool {
		return r.Status.Step != nil && r.Status.Step.Name == step && r.Status.Step.Applied != nil
	})
}

// stayIn waits for a step and suspends the run there, as a person does who wants to look at it: gates still act.
func (s *stage) stayIn(t *testing.T, name, step string) {
	t.Helper()
	s.waitStep(t, name, step)
	s.suspend(t, name, true)
	s.waitStep(t, name, step) // and not the next one, which a late hand would have found
}

// goOn lets a suspended run go on.
func (s *stage) goOn(t *testing.T, name string) {
	t.Helper()
	s.suspend(t, name, false)
}

func (s *stage) suspend(t *testing.T, name string, is bool) {
	t.Helper()
	rollout := &v1.Rollout{ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name}}
	patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"suspend":%t}}`, is)) // what kubectl patch sends
	if err := s.cluster.Client.Patch(t.Context(), rollout, patch); err != nil {
		t.Fatal(err)
	}
}

var versionLine = regexp.MustCompile(`(?m)^  version: .*$`)

// pushVersion changes the one line that CI changes, in a file of the example, and pushes it.
func (s *stage) pushVersion(t *testing.T, file, version string) {
	t.Helper()
	manifest := s.pushed(t, file)
	if n := len(versionLine.FindAllString(manifest, -1)); n != 1 {
		t.Fatalf("%s has %d lines with a spec.version, want one", file, n)
	}
	s.pushFile(t, file, versionLine.ReplaceAllString(manifest, "  version: "+version))
}

// pushEdit replaces a part of a file of the example and pushes it.
func (s *stage) pushEdit(t *testing.T, file, old, replacement string) {
	t.Helper()
	manifest := s.pushed(t, file)
	if n := strings.Count(manifest, old); n != 1 {
		t.Fatalf("%s has %q %d times, want it once", file, old, n)
	}
	s.pushFile(t, file, strings.Replace(manifest, old, replacement, 1))
}

// pushed is what a file of the example holds in the repository now.
func (s *stage) pushed(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.Repository.Dir, deployFolder, file))
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func (s *stage) pushFile(t *testing.T, file, content string) {
	t.Helper()
	s.write(t, deployFolder+"/"+file, content)
	s.waitSynced(t, deploySync, s.push(t, file))
}

// revert pushes a `git revert` of the last commit.
func (s *stage) revert(t *testing.T) {
	t.Helper()
	commit, err := s.Revert(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.waitSynced(t, deploySync, commit)
}
