package controlplane_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	istio "istio.io/client-go/pkg/clientset/versioned"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"sluice.dev/sluice/sandbox/controlplane"
	"sluice.dev/sluice/sandbox/gitserver"
)

const virtualService = `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: reviews
spec:
  hosts: [reviews]
  http:
  - route:
    - destination: {host: reviews, subset: v1}
---
apiVersion: v1
kind: Service
metadata:
  name: reviews
spec:
  selector: {app: reviews}
  ports: [{name: http, port: 9080}]
`

// TestControlPlane walks through one control plane, since each start takes seconds.
func TestControlPlane(t *testing.T) {
	dataDir := t.TempDir()
	begin := time.Now()
	c, err := controlplane.Start(t.Context(), controlplane.Options{DataDir: dataDir, Out: t.Output()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	t.Logf("started in %s", time.Since(begin))
	if err := c.CreateNamespace(t.Context(), "bookinfo"); err != nil {
		t.Fatal(err)
	}

	t.Run("VirtualService reaches istiod", func(t *testing.T) { reachesIstiod(t, c) })
	t.Run("version", func(t *testing.T) { reportsVersion(t, c) })
	t.Run("access", func(t *testing.T) { access(t, c) })
	t.Run("Prometheus", func(t *testing.T) { prometheus(t, c) })
	t.Run("Git", func(t *testing.T) { pushAndClone(t, c) })
	t.Run("restarts", func(t *testing.T) { restarts(t, c) })
	t.Run("data folder is locked", func(t *testing.T) {
		_, err := controlplane.StartAPIOnly(t.Context(), controlplane.Options{DataDir: dataDir})
		if err == nil || !strings.Contains(err.Error(), "only one control plane") {
			t.Errorf("second start in the same folder: %v", err)
		}
	})

	select {
	case err := <-c.Crashed():
		t.Errorf("a server crashed: %v", err)
	default:
	}
	begin = time.Now()
	c.Stop()
	t.Logf("stopped in %s", time.Since(begin))
	if left := processesNaming(t, dataDir); len(left) > 0 {
		t.Errorf("processes left after Stop: %s", left)
	}
}

func reachesIstiod(t *testing.T, c *controlplane.ControlPlane) {
	if err := c.Kube.Apply(t.Context(), "bookinfo", []byte(virtualService)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "istiod's configuration to hold the VirtualService", func() error {
		body, err := get(t, c.DiscoveryURL+"/debug/configz")
		if err == nil && !strings.Contains(body, `"name":"reviews"`) {
			err = fmt.Errorf("no reviews in %s", body)
		}
		return err
	})
}

func reportsVersion(t *testing.T, c *controlplane.ControlPlane) {
	out, err := kubectl(t, c, c.KubeConfig, "version", "-o", "json")
	if err != nil {
		t.Fatal(err)
	}
	var answer struct {
		ClientVersion, ServerVersion struct{ GitVersion, Minor string }
	}
	if err := json.Unmarshal([]byte(out), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.ServerVersion != answer.ClientVersion || !strings.HasPrefix(answer.ServerVersion.GitVersion, "v1."+answer.ServerVersion.Minor) {
		t.Errorf("versions %+v, want client and server alike", answer)
	}
}

func access(t *testing.T, c *controlplane.ControlPlane) {
	account, err := c.KubeConfigForServiceAccount(t.Context(), "bookinfo", "default")
	if err != nil {
		t.Fatal(err)
	}
	user, err := c.KubeConfigFor("ada@example.com", "developers")
	if err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		c.KubeConfig: "admin",
		account:      "system:serviceaccount:bookinfo:default",
		user:         "ada@example.com",
	} {
		out, err := kubectl(t, c, file, "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}")
		if err != nil || out != want {
			t.Errorf("whoami by %s = %q, %v; want %q", filepath.Base(file), out, err, want)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", user)
	if err != nil {
		t.Fatal(err)
	}
	client := kubernetes.NewForConfigOrDie(config)
	if _, err := client.CoreV1().Secrets("bookinfo").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a user without rights lists secrets: %v, want Forbidden", err)
	}
}

func prometheus(t *testing.T, c *controlplane.ControlPlane) {
	exporter := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "lamps 4")
	}))
	defer exporter.Close()
	group := controlplane.TargetGroup{
		Targets: []string{strings.TrimPrefix(exporter.URL, "http://")},
		Labels:  map[string]string{"namespace": "bookinfo"},
	}
	if err := c.SetTargets("lamps", group); err != nil {
		t.Fatal(err)
	}
	query := c.PrometheusURL + "/api/v1/query?query=" + url.QueryEscape(`lamps{namespace="bookinfo"}`)
	scraped := func() error {
		body, err := get(t, query)
		if err == nil && !strings.Contains(body, `"4"`) {
			err = fmt.Errorf("answer %s", body)
		}
		return err
	}
	eventually(t, "the target to be scraped", scraped)

	if err := c.Prometheus.Stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := get(t, query); err == nil {
		t.Error("Prometheus answers after Stop")
	}
	if err := c.Prometheus.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Prometheus to answer again", scraped)
	if err := c.SetTargets("lamps"); err != nil {
		t.Error(err)
	}
}

func pushAndClone(t *testing.T, c *controlplane.ControlPlane) {
	repository, err := c.Git.CreateRepository(t.Context(), "bookinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(repository, c.GitURL+"/") {
		t.Errorf("repository %s does not lie under %s", repository, c.GitURL)
	}
	work, err := gitserver.Clone(t.Context(), repository, filepath.Join(t.TempDir(), "work"))
	if err != nil {
		t.Fatal(err)
	}
	if err := work.Write(t.Context(), "rollout.yaml", "kind: Rollout\n"); err != nil {
		t.Fatal(err)
	}
	pushed, err := work.Push(t.Context(), "Add a rollout")
	if err != nil {
		t.Fatal(err)
	}
	other, err := gitserver.Clone(t.Context(), repository, filepath.Join(t.TempDir(), "other"))
	if err != nil {
		t.Fatal(err)
	}
	if head, err := other.Git(t.Context(), "rev-parse", "HEAD"); err != nil || head != pushed {
		t.Errorf("cloned %s, %v; pushed %s", head, err, pushed)
	}
}

func restarts(t *testing.T, c *controlplane.ControlPlane) {
	host := c.RESTConfig.Host
	for name, restart := range map[string]func(context.Context) error{
		"kube-apiserver": c.APIServer.Restart, "istiod": c.Discovery.Restart,
		"etcd": func(ctx context.Context) error { c.Etcd.Kill(); return c.Etcd.Start(ctx) },
	} {
		if err := restart(t.Context()); err != nil {
			t.Fatalf("restart %s: %v", name, err)
		}
	}
	if c.RESTConfig.Host != host {
		t.Errorf("the API server moved from %s to %s", host, c.RESTConfig.Host)
	}
	client := istio.NewForConfigOrDie(c.RESTConfig)
	eventually(t, "the VirtualService after the restarts", func() error {
		_, err := client.NetworkingV1().VirtualServices("bookinfo").Get(t.Context(), "reviews", metav1.GetOptions{})
		return err
	})
}

func TestStartAPIOnly(t *testing.T) {
	begin := time.Now()
	c, err := controlplane.StartAPIOnly(t.Context(), controlplane.Options{Out: t.Output(), SkipIstioCRDs: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	t.Logf("started in %s", time.Since(begin))

	if err := c.CreateNamespace(t.Context(), "bookinfo"); err != nil {
		t.Fatal(err)
	}
	client := istio.NewForConfigOrDie(c.RESTConfig).NetworkingV1().VirtualServices("bookinfo")
	if _, err := client.List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("VirtualServices without CRDs: %v, want NotFound", err)
	}
	begin = time.Now()
	if err := c.InstallIstioCRDs(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Logf("installed Istio's CRDs in %s", time.Since(begin))
	if _, err := client.List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	c.Stop()
	if _, err := os.Stat(c.DataDir); !os.IsNotExist(err) {
		t.Errorf("temporary data folder after Stop: %v, want it gone", err)
	}
}

func TestStartThatFails(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dataDir := t.TempDir()
	if _, err := controlplane.StartAPIOnly(ctx, controlplane.Options{DataDir: dataDir}); err == nil || !strings.Contains(err.Error(), "etcd") {
		t.Errorf("start with a context that has ended: %v, want an error that names etcd", err)
	}
	if left := processesNaming(t, dataDir); len(left) > 0 {
		t.Errorf("processes left after a start that failed: %s", left)
	}
}

func TestNewPodAddress(t *testing.T) {
	var c controlplane.ControlPlane
	seen := make(map[string]bool)
	first := c.NewPodAddress()
	for range 70_000 {
		seen[c.NewPodAddress()] = true
	}
	if first != "127.1.0.1" || len(seen) != 70_000 || seen[first] {
		t.Errorf("first address %s, then %d different ones of 70000", first, len(seen))
	}
}

func kubectl(t *testing.T, c *controlplane.ControlPlane, kubeconfig string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), c.Kubectl, append([]string{"--kubeconfig", kubeconfig}, args...)...).CombinedOutput()
	return string(out), err
}

func get(t *testing.T, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("GET %s: %s: %s", url, resp.Status, body)
	}
	return string(body), err
}

// eventually retries what until it returns nil, for 20 s at most.
func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("waited for %s: %v", what, err)
		case <-tick.C:
		}
	}
}

// processesNaming lists the processes, besides this one, whose command line holds text.
func processesNaming(t *testing.T, text string) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, file := range files {
		if filepath.Base(filepath.Dir(file)) == strconv.Itoa(os.Getpid()) {
			continue
		}
		line, _ := os.ReadFile(file) // it may have ended since
		if strings.Contains(string(line), text) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}
