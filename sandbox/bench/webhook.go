package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/gitserver"
	"sluice.dev/sluice/sandbox/session"
)

// Where the Rollout comes from Git.
const (
	gitNamespace = "bench-git"
	gitSync      = "bench"
	hookToken    = "a token of the benchmark's own"
	// lastPush is the last version that is pushed.
	lastPush = 6
)

// pushes measures from the delivery of a push to the first write of traffic.
func (m *measurement) pushes(ctx context.Context) error {
	if m.n >= fewest {
		return nil // a figure of one Rollout
	}
	m.evidence.set(good)
	f, work, err := m.followGit(ctx)
	if err != nil {
		return err
	}
	var times []time.Duration
	for i := 2; i <= lastPush; i++ {
		version := fmt.Sprintf("v%d", i)
		if err := f.deploy(ctx, version); err != nil {
			return err
		}
		commit, err := push(ctx, work, f.keys[0].Name, version)
		if err != nil {
			return err
		}
		if err := m.settle(ctx); err != nil {
			return err
		}
		began, wait := time.Now(), m.watcher.expect(f.keys, func(s *state) bool { return s.weights[version] == 50 })
		if err := m.deliver(ctx, commit); err != nil {
			return err
		}
		at, err := m.watcher.done(ctx, version+" has half of the traffic", wait)
		if err != nil {
			return err
		}
		times = append(times, at[f.keys[0]].Sub(began))
		if _, err := m.watcher.done(ctx, version+" is promoted", m.watcher.reach(f.keys, healthy(version))); err != nil {
			return err
		}
	}
	m.report.add(timeFigure("P8", "push webhook → first traffic write", m.n, times, m.limit.rollback))
	return nil
}

// followGit makes a Rollout that comes from a repository, and returns a clone to push from.
func (m *measurement) followGit(ctx context.Context) (*fleet, *gitserver.Work, error) {
	f, err := m.newServices(ctx, gitNamespace, 1)
	if err != nil {
		return nil, nil, err
	}
	rights, err := os.ReadFile(filepath.Join(m.Root, "examples", "reviews", "rbac.yaml"))
	if err != nil {
		return nil, nil, err
	}
	if err := m.Kube.Apply(ctx, gitNamespace, rights); err != nil {
		return nil, nil, err
	}
	url, err := m.Git.CreateRepository(ctx, gitNamespace)
	if err != nil {
		return nil, nil, err
	}
	folder := filepath.Join(m.DataDir, "work", gitNamespace)
	if err := os.RemoveAll(folder); err != nil {
		return nil, nil, err
	}
	work, err := gitserver.Clone(ctx, url, folder)
	if err != nil {
		return nil, nil, err
	}
	if _, err := push(ctx, work, f.keys[0].Name, "v1"); err != nil {
		return nil, nil, err
	}
	secret := &corev1.Secret{StringData: map[string]string{"token": hookToken}}
	sync := &v1.GitSync{Spec: v1.GitSyncSpec{
		URL: url, Interval: &metav1.Duration{Duration: time.Hour}, ServiceAccountName: "bookinfo-deployer",
		Webhook: &v1.Webhook{Provider: "github", SecretRef: v1.LocalReference{Name: "hook-secret"}},
	}}
	if err := f.create(ctx, 0, secret, "hook-secret"); err != nil {
		return nil, nil, err
	}
	if err := f.create(ctx, 0, sync, gitSync); err != nil {
		return nil, nil, err
	}
	_, err = m.watcher.done(ctx, "v1 serves", m.watcher.reach(f.keys, healthy("v1")))
	return f, work, err
}

// push commits a version of the Rollout, and returns the commit.
func push(ctx context.Context, work *gitserver.Work, host, version string) (string, error) {
	content, err := yaml.Marshal(map[string]any{
		"apiVersion": v1.GroupVersion.String(), "kind": "Rollout",
		"metadata": map[string]any{"name": host}, "spec": rolloutSpec(host, version),
	})
	if err != nil {
		return "", err
	}
	if err := work.Write(ctx, "rollout.yaml", string(content)); err != nil {
		return "", err
	}
	return work.Push(ctx, version)
}

// deliver tells the operator of a push as GitHub does.
func (m *measurement) deliver(ctx context.Context, commit string) error {
	body, err := json.Marshal(map[string]any{"ref": "refs/heads/main", "after": commit, "repository": map[string]string{"full_name": gitNamespace}})
	if err != nil {
		return err
	}
	url := m.operator.HookURL + v1.WebhookPathOf(gitNamespace, gitSync)
	status, reason, err := session.PostHook(ctx, url, body, session.GitHubHeaders(hookToken, body))
	if err == nil && status >= http.StatusMultipleChoices {
		err = fmt.Errorf("the operator answered %d, %s", status, reason)
	}
	return err
}
