package session

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v1 "sluice.dev/sluice/api/v1"
	"sluice.dev/sluice/sandbox/gitserver"
)

// hookSecret is the Secret that the example's GitSync names, and hookSync its name.
const (
	hookSecret = "hook-secret"
	hookSync   = "bookinfo"
)

// deliveryTimeout is a forge's patience with an answer.
const deliveryTimeout = 10 * time.Second

// forge makes of the Git server what GitHub is: it delivers each push to the webhook of its repository.
type forge struct {
	mu sync.Mutex
	// hooks by repository.
	hooks map[string]hook
	// ports of operators, in the order of their start.
	ports      []hookPort
	deliveries map[string][]Delivery
}

type hook struct{ namespace, token string }

// hookPort is an operator's, which watches some namespaces; none: all.
type hookPort struct {
	url        string
	namespaces []string
}

// Delivery is a webhook's request and its answer.
type Delivery struct {
	gitserver.Push
	// Sent is when the push was taken in, Answered when the operator had answered.
	Sent, Answered time.Time
	Status         int
	// Reason of the answer.
	Reason string
	// Err is set when no operator answered.
	Err error
}

func newForge() *forge {
	return &forge{hooks: map[string]hook{}, deliveries: map[string][]Delivery{}}
}

func (f *forge) register(repository string, h hook) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hooks[repository] = h
}

func (f *forge) addPort(port hookPort) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ports = append(f.ports, port)
}

// portsFor lists the hook ports where a namespace's GitSyncs are known, those that were opened last first.
func (f *forge) portsFor(namespace string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var urls []string
	for _, port := range slices.Backward(f.ports) {
		if len(port.namespaces) == 0 || slices.Contains(port.namespaces, namespace) {
			urls = append(urls, port.url)
		}
	}
	return urls
}

// pushed delivers a push. The client that pushed does not wait for it.
func (f *forge) pushed(push gitserver.Push) {
	f.mu.Lock()
	h, found := f.hooks[push.Repository]
	f.mu.Unlock()
	if !found {
		return
	}
	d := Delivery{Push: push, Sent: time.Now()}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), deliveryTimeout)
		defer cancel()
		d.Err = errors.New("no operator runs")
		for _, base := range f.portsFor(h.namespace) {
			if d.Status, d.Reason, d.Err = deliver(ctx, base, h, push); d.Err == nil {
				break
			}
		}
		d.Answered = time.Now()
		f.mu.Lock()
		defer f.mu.Unlock()
		f.deliveries[push.Repository] = append(f.deliveries[push.Repository], d)
	}()
}

func deliver(ctx context.Context, base string, h hook, push gitserver.Push) (status int, reason string, err error) {
	body, err := json.Marshal(map[string]any{
		"ref": push.Ref, "after": push.Commit, "repository": map[string]string{"full_name": push.Repository},
	})
	if err != nil {
		return 0, "", err
	}
	return PostHook(ctx, base+v1.WebhookPathOf(h.namespace, hookSync), body, GitHubHeaders(h.token, body))
}

// GitHubHeaders are those of a push, with the body's signature as GitHub makes it.
func GitHubHeaders(token string, body []byte) http.Header {
	mac := hmac.New(sha256.New, []byte(token))
	mac.Write(body)
	header := http.Header{}
	header.Set("Content-Type", "application/json")
	header.Set("X-GitHub-Event", "push")
	header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	return header
}

// PostHook delivers a body and returns the answer's status and reason code.
func PostHook(ctx context.Context, url string, body []byte, header http.Header) (status int, reason string, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	request.Header = header
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = response.Body.Close() }()
	answer := struct {
		Reason string `json:"reason"`
	}{}
	content, err := io.ReadAll(response.Body)
	if err == nil {
		err = json.Unmarshal(content, &answer)
	}
	if err != nil {
		return response.StatusCode, "", fmt.Errorf("answer %q to a delivery: %w", content, err)
	}
	return response.StatusCode, answer.Reason, nil
}

// openHook gives a namespace the Secret of its webhook, and has pushes to its repository delivered.
func (c *Cluster) openHook(ctx context.Context, namespace string) (token string, err error) {
	token = rand.Text()
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: hookSecret},
		StringData: map[string]string{"token": token},
	}
	if err := c.Client.Create(ctx, secret); err != nil {
		return "", fmt.Errorf("the webhook's Secret: %w", err)
	}
	c.forge.register(namespace, hook{namespace: namespace, token: token})
	return token, nil
}

// HookPath is where deliveries for a GitSync of the namespace go.
func (b *Bookinfo) HookPath(sync string) string { return v1.WebhookPathOf(b.Namespace, sync) }

// DeliveryOf is what became of the delivery of a commit, once it was answered.
func (b *Bookinfo) DeliveryOf(commit string) (Delivery, bool) {
	f := b.cluster.forge
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, d := range f.deliveries[b.Namespace] {
		if d.Commit == commit {
			return d, true
		}
	}
	return Delivery{}, false
}
