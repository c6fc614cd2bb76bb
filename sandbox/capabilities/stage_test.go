package capabilities

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/environment"
	"sluice.dev/sluice/sandbox/session"
	"sluice.dev/sluice/sandbox/setup"
)

// example says what a test runs.
type example struct {
	// dir is a folder of examples/.
	dir string
	// apps are files of examples/apps that run in its namespace; none where the example brings its own.
	apps []string
	// gateway gives the namespace an ingress gateway (label istio: ingressgateway).
	gateway bool
	// locality of the client pod, as region/zone; "" is none.
	locality string
	// envoyStats has the proxies expose Envoy's own statistics, as proxyStatsMatcher does in life.
	envoyStats bool
	// configuration: what the test asserts is what istiod makes of the objects.
	configuration bool
}

// The folders of a repository, and the GitSyncs that apply them.
const (
	appsFolder, appsSync     = "apps", "apps"
	deployFolder, deploySync = "deploy", "bookinfo" // whose webhook the sandbox's forge delivers to
	deployer                 = "bookinfo-deployer"
	exampleAddress           = "http://bookinfo.example.com"
	exampleDomain            = ".bookinfo.svc.cluster.local"
)

// stage is a namespace in which an example runs.
type stage struct {
	*session.Bookinfo
	visitor // a client pod (labels app: client) of the namespace
	gateway visitor
	cluster *session.Cluster
	example example
}

// newStage brings an example up, and waits until its Rollouts are Healthy.
func newStage(t *testing.T, e example) *stage {
	t.Helper()
	s := newBareStage(t, e)
	s.follow(t)
	for _, rollout := range s.rollouts(t) {
		s.waitHealthy(t, rollout.Name, rollout.Spec.Version)
	}
	return s
}

// newBareStage brings the example's applications up and pushes nothing yet; follow does.
func newBareStage(t *testing.T, e example) *stage {
	t.Helper()
	record(t, e)
	cluster := servers.start(t)
	s := &stage{cluster: cluster, example: e}
	var err error
	s.Bookinfo, err = cluster.Deploy(t.Context(), setup.UniqueName("e"+e.dir), environment.Options{Empty: true, OwnGateway: e.gateway, EnvoyStats: e.envoyStats, Locality: e.locality})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.close(t) })
	s.visitor = visitor{client: s.Client()}
	s.gateway = visitor{client: http.DefaultClient, entry: s.IngressURL()}
	s.kubectlApply(t, filepath.Join(cluster.Root, "examples", "rbac.yaml"))
	for _, app := range e.apps {
		s.write(t, appsFolder+"/"+app, s.read(t, filepath.Join("apps", app)))
	}
	if len(e.apps) > 0 {
		s.sync(t, appsSync, appsFolder, s.push(t, "applications"))
		s.waitAvailable(t)
	}
	return s
}

// follow pushes the example's folder, has it applied, and waits for that.
func (s *stage) follow(t *testing.T) {
	t.Helper()
	root := filepath.Join(s.cluster.Root, "examples", s.example.dir)
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || entry.Name() == "README.md" {
			return err
		}
		name, err := filepath.Rel(root, path)
		s.write(t, deployFolder+"/"+name, s.read(t, filepath.Join(s.example.dir, name)))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	s.sync(t, deploySync, deployFolder, s.push(t, s.example.dir))
	s.waitAvailable(t)
}

// read gives a file of examples/, with the gateway's address and the namespace's full names in it.
func (s *stage) read(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(s.cluster.Root, "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(content), exampleDomain, "."+s.Namespace+".svc.cluster.local")
	if s.IngressURL() == "" {
		return text
	}
	return strings.ReplaceAll(text, exampleAddress, s.IngressURL())
}

func (s *stage) write(t *testing.T, path, content string) {
	t.Helper()
	if err := s.Repository.Write(t.Context(), path, content); err != nil {
		t.Fatal(err)
	}
}

func (s *stage) push(t *testing.T, message string) (commit string) {
	t.Helper()
	commit, err := s.Repository.Push(t.Context(), message)
	if err != nil {
		t.Fatal(err)
	}
	return commit
}

// sync follows a folder of the repository, and waits until a commit is applied.
func (s *stage) sync(t *testing.T, name, folder, commit string) {
	t.Helper()
	sync := &v1.GitSync{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name},
		Spec: v1.GitSyncSpec{
			URL: s.RepositoryURL, Path: folder, Interval: &metav1.Duration{Duration: 2 * time.Second}, ServiceAccountName: deployer,
		},
	}
	if name == deploySync {
		sync.Spec.Webhook = &v1.Webhook{Provider: "github", SecretRef: v1.LocalReference{Name: "hook-secret"}}
	}
	if err := s.cluster.Client.Create(t.Context(), sync); err != nil && !apierrors.IsAlreadyExists(err) {
		t.Fatal(err)
	}
	s.waitSynced(t, name, commit)
}

// waitSynced waits until a GitSync has applied a commit.
func (s *stage) waitSynced(t *testing.T, name, commit string) {
	t.Helper()
	var sync v1.GitSync
	s.eventually(t, "GitSync "+name+" applies "+commit, func() (bool, string) {
		if err := s.cluster.Client.Get(t.Context(), types.NamespacedName{Namespace: s.Namespace, Name: name}, &sync); err != nil {
			return false, err.Error()
		}
		return strings.HasSuffix(sync.Status.Revision, commit), fmt.Sprint(sync.Status.Conditions)
	})
}

// waitAvailable waits until every Deployment of the namespace is.
func (s *stage) waitAvailable(t *testing.T) {
	t.Helper()
	var list appsv1.DeploymentList
	s.eventually(t, "every Deployment is available", func() (bool, string) {
		if err := s.cluster.Client.List(t.Context(), &list, client.InNamespace(s.Namespace)); err != nil {
			return false, err.Error()
		}
		for _, d := range list.Items {
			if d.Status.ObservedGeneration != d.Generation || d.Status.AvailableReplicas == 0 {
				return false, "Deployment " + d.Name
			}
		}
		return true, ""
	})
}

func (s *stage) kubectlApply(t *testing.T, file string) {
	t.Helper()
	if _, err := s.cluster.KubectlRun(t.Context(), "apply", "-n", s.Namespace, "-f", file); err != nil {
		t.Fatal(err)
	}
}

// close tells what there was when the test failed, has the operator take all of it back, and ends the namespace's pods.
func (s *stage) close(t *testing.T) {
	ctx := context.WithoutCancel(t.Context())
	if t.Failed() {
		if said, err := s.cluster.KubectlRun(ctx, "get", "rollouts,virtualservices,destinationrules", "-n", s.Namespace, "-o", "yaml"); err == nil {
			t.Log(said)
		}
		log := servers.operatorLog()
		t.Logf("the end of the operator's log:\n%s", log[max(0, len(log)-4000):])
	}
	if _, err := s.cluster.KubectlRun(ctx, "delete", "gitsyncs", "--all", "--wait=false", "-n", s.Namespace); err != nil {
		t.Error(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// patience is the longest that anything takes on a busy machine.
const patience = 2 * time.Minute

// eventually asks until the answer is yes; what is there instead is told when it never is.
func (s *stage) eventually(t *testing.T, what string, is func() (bool, string)) {
	t.Helper()
	eventually(t, what, is)
}

func eventually(t *testing.T, what string, is func() (bool, string)) {
	t.Helper()
	began := time.Now()
	for {
		yes, instead := is()
		if yes {
			t.Logf("after %5.1fs: %s", time.Since(began).Seconds(), what)
			return
		}
		if time.Since(began) > patience {
			t.Fatalf("never: %s; %s", what, instead)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
