package session

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/environment"
	"sluice.dev/sluice/sandbox/gitserver"
	"sluice.dev/sluice/sandbox/load"
)

const (
	exampleHost = "http://bookinfo.example.com"
	exampleRepo = "https://git.example.com/team/bookinfo.git"
	// exampleFolder is where the manifests stand in the repository, as in gitsync.yaml.
	exampleFolder = "deploy"
	// exampleInterval is what stands in gitsync.yaml; with shortInterval tests need not wait when nobody delivers their pushes.
	exampleInterval = "interval: 1m"
	shortInterval   = "2s"
)

// Bookinfo is a namespace with the sample in the mesh, a repository that holds its Rollout, and a way in for users.
type Bookinfo struct {
	*environment.Environment
	cluster *Cluster
	// Entry is the base URL of productpage for anyone on the machine: the gateway's, or a door of the session's own.
	Entry string
	// Repository is a clone to push from; RepositoryURL is what the GitSync follows.
	Repository    *gitserver.Work
	RepositoryURL string
	// HookToken is the key of the webhook, which each push is delivered to as GitHub does.
	HookToken string
	// Interval of the GitSync's fetches without a webhook's delivery.
	Interval string
	// Manifest of the Rollout, in examples/reviews or beside it; default rollout.yaml.
	Manifest string
	door     *http.Server
}

// DeployBookinfo brings the sample up in a namespace. Only one namespace of a cluster has the gateway; the others get a
// door: a reverse proxy whose requests enter the mesh through a client pod's sidecar.
func (c *Cluster) DeployBookinfo(ctx context.Context, namespace string, gateway bool) (*Bookinfo, error) {
	return c.Deploy(ctx, namespace, environment.Options{Gateway: gateway})
}

// Deploy is DeployBookinfo with all that the environment knows.
func (c *Cluster) Deploy(ctx context.Context, namespace string, options environment.Options) (*Bookinfo, error) {
	env, err := environment.Deploy(ctx, c.ControlPlane, namespace, options)
	if err != nil {
		return nil, fmt.Errorf("bringing bookinfo up in %s: %w", namespace, err)
	}
	b := &Bookinfo{Environment: env, cluster: c, Entry: env.IngressURL(), Interval: shortInterval, Manifest: "rollout.yaml"}
	if !options.Gateway {
		if err := b.openDoor(ctx); err != nil {
			return nil, err
		}
	}
	if b.RepositoryURL, err = c.Git.CreateRepository(ctx, namespace); err != nil {
		return nil, err
	}
	if b.HookToken, err = c.openHook(ctx, namespace); err != nil {
		return nil, err
	}
	work := filepath.Join(c.DataDir, "work", namespace)
	if err := os.RemoveAll(work); err != nil { // what an earlier session left
		return nil, err
	}
	b.Repository, err = gitserver.Clone(ctx, b.RepositoryURL, work)
	return b, err
}

func (b *Bookinfo) openDoor(ctx context.Context) error {
	page, err := url.Parse(b.ProductPage)
	if err != nil {
		return err
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{
		Transport: b.Client().Transport,
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: page.Scheme, Host: page.Host})
			r.Out.Host = page.Host
		},
	}
	b.Entry = "http://" + listener.Addr().String()
	b.door = &http.Server{Handler: proxy, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = b.door.Serve(listener) }()
	return nil
}

// Close takes the namespace's pods away.
func (b *Bookinfo) Close() error {
	if b.door != nil {
		_ = b.door.Close()
	}
	return b.Environment.Close()
}

// ProbeHost is what the operator must allow probes to ask.
func (b *Bookinfo) ProbeHost() string { return strings.TrimPrefix(b.Entry, "http://") }

// Example reads a manifest of examples/reviews, with this sandbox's addresses and interval in it.
func (b *Bookinfo) Example(name string) ([]byte, error) {
	manifest, err := os.ReadFile(filepath.Join(b.cluster.Root, "examples", "reviews", name))
	if err != nil {
		return nil, err
	}
	text := strings.ReplaceAll(string(manifest), exampleHost, b.Entry)
	text = strings.ReplaceAll(text, exampleInterval, "interval: "+b.Interval)
	return []byte(strings.ReplaceAll(text, exampleRepo, b.RepositoryURL)), nil
}

// Apply applies manifests of examples/reviews with kubectl, as a person does.
func (b *Bookinfo) Apply(ctx context.Context, names ...string) error {
	for _, name := range names {
		manifest, err := b.Example(name)
		if err != nil {
			return err
		}
		if _, err := b.cluster.KubectlStdin(ctx, string(manifest), "apply", "-n", b.Namespace, "-f", "-"); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// Follow pushes the Rollout with version v1, lets a GitSync follow the repository, and waits until the Rollout is Healthy.
func (b *Bookinfo) Follow(ctx context.Context) error {
	if _, err := b.PushRollout(ctx, "reviews: v1", func(*v1.RolloutSpec) {}); err != nil {
		return err
	}
	if err := b.Apply(ctx, "gitsync.yaml"); err != nil {
		return err
	}
	_, err := b.WaitRollout(ctx, "Healthy", func(r *v1.Rollout) bool { return r.Status.Phase == v1.PhaseHealthy })
	return err
}

// PushRollout commits the example's Rollout with changes, pushes it, and returns the commit.
func (b *Bookinfo) PushRollout(ctx context.Context, message string, change func(*v1.RolloutSpec)) (string, error) {
	manifest, err := b.Example(b.Manifest)
	if err != nil {
		return "", err
	}
	var rollout v1.Rollout
	if err := yaml.UnmarshalStrict(manifest, &rollout); err != nil {
		return "", fmt.Errorf("%s: %w", b.Manifest, err)
	}
	change(&rollout.Spec)
	content, err := manifestOf(&rollout)
	if err != nil {
		return "", err
	}
	return b.PushFile(ctx, message, "rollout.yaml", content)
}

// PushFile commits and pushes one file of the folder that the GitSync follows.
func (b *Bookinfo) PushFile(ctx context.Context, message, name, content string) (string, error) {
	if err := b.Repository.Write(ctx, exampleFolder+"/"+name, content); err != nil {
		return "", err
	}
	return b.Repository.Push(ctx, message)
}

// Revert pushes a `git revert` of the last commit.
func (b *Bookinfo) Revert(ctx context.Context) (string, error) {
	if _, err := b.Repository.Git(ctx, "revert", "--no-edit", "HEAD"); err != nil {
		return "", err
	}
	if _, err := b.Repository.Git(ctx, "push", "origin", "main"); err != nil {
		return "", err
	}
	sha, err := b.Repository.Git(ctx, "rev-parse", "HEAD")
	return strings.TrimSpace(sha), err
}

// manifestOf is the YAML that a person would keep: no status, no empty metadata.
func manifestOf(rollout *v1.Rollout) (string, error) {
	spec, err := yaml.Marshal(map[string]any{
		"apiVersion": v1.GroupVersion.String(), "kind": "Rollout",
		"metadata": map[string]any{"name": rollout.Name}, "spec": rollout.Spec,
	})
	return string(spec), err
}

// Rollout reads the Rollout as it is.
func (b *Bookinfo) Rollout(ctx context.Context) (*v1.Rollout, error) {
	var rollout v1.Rollout
	err := b.cluster.Client.Get(ctx, types.NamespacedName{Namespace: b.Namespace, Name: "reviews"}, &rollout)
	return &rollout, err
}

// WaitRollout waits until the Rollout meets a condition; the error tells what it is instead.
func (b *Bookinfo) WaitRollout(ctx context.Context, what string, meets func(*v1.Rollout) bool) (*v1.Rollout, error) {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	var last *v1.Rollout
	for {
		rollout, err := b.Rollout(ctx)
		if err == nil {
			if last = rollout; meets(rollout) {
				return rollout, nil
			}
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			if last == nil {
				return nil, fmt.Errorf("waiting for %s: there is no Rollout reviews in %s: %w", what, b.Namespace, err)
			}
			return last, fmt.Errorf("waiting for %s: Rollout is %s %s: %s", what, last.Status.Phase, last.Status.Reason, last.Status.Message)
		}
	}
}

// StartLoad sends requests per second from users, a tenth of whom is jason, until it is stopped or the context ends.
func (b *Bookinfo) StartLoad(ctx context.Context, rate float64) (*load.Generator, error) {
	return load.Start(ctx, load.Options{URL: b.Entry + "/productpage", Rate: rate, User: "jason", UserShare: 0.1})
}
