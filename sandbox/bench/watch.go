package bench

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

const (
	rolloutsPath        = "/apis/sluice.dev/v1/rollouts"
	virtualServicesPath = "/apis/networking.istio.io/v1/virtualservices"
)

// state is what is seen of a Rollout and of the VirtualService of the same name.
type state struct {
	phase, reason, message string
	stable, step           string
	// weights of the subsets that the VirtualService sends to.
	weights map[string]int
}

// serves tells whether a version has all traffic.
func (s *state) serves(version string) bool {
	return maps.Equal(s.weights, map[string]int{version: 100})
}

// watcher sees every change of Rollouts and VirtualServices, at the time at which the API server tells it.
type watcher struct {
	config *rest.Config
	client *http.Client
	ended  chan error

	mu     sync.Mutex
	states map[types.NamespacedName]*state
	wait   *wait
}

// wait is for a set of Rollouts to satisfy a condition, each once.
type wait struct {
	condition func(*state) bool
	left      map[types.NamespacedName]bool
	at        map[types.NamespacedName]time.Time
	all       chan struct{}
}

func startWatcher(ctx context.Context, config *rest.Config) (*watcher, error) {
	client, err := rest.HTTPClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("a client for watching: %w", err)
	}
	w := &watcher{config: config, client: client, ended: make(chan error, 2), states: map[types.NamespacedName]*state{}}
	for _, path := range []string{rolloutsPath, virtualServicesPath} {
		body, err := w.open(ctx, path, "")
		if err != nil {
			return nil, err
		}
		go func() { w.ended <- w.watch(ctx, path, body) }()
	}
	return w, nil
}

// object is what is read of a Rollout or a VirtualService.
type object struct {
	Metadata struct{ Namespace, Name, ResourceVersion string }
	Spec     struct {
		HTTP []struct {
			Route []struct {
				Weight      *int
				Destination struct{ Subset string }
			}
		}
	}
	Status struct {
		Phase, Reason, Message, Stable string
		Step                           *struct{ Name string }
	}
}

// open begins a watch of a kind after a resourceVersion. A kind that was just made asks to be patient.
func (w *watcher) open(ctx context.Context, path, version string) (io.ReadCloser, error) {
	for {
		url := w.config.Host + path + "?watch=1&timeoutSeconds=36000&resourceVersion=" + version
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return nil, fmt.Errorf("watching %s: %w", path, err)
		}
		resp, err := w.client.Do(req)
		if err != nil {
			return nil, fmt.Errorf("watching %s: %w", path, err)
		}
		if resp.StatusCode == http.StatusOK {
			return resp.Body, nil
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests {
			return nil, fmt.Errorf("watching %s: %s", path, resp.Status)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// watch goes on until something fails. A busy API server ends watches that can be resumed.
func (w *watcher) watch(ctx context.Context, path string, body io.ReadCloser) error {
	for {
		version, err := w.follow(path, body)
		if err != nil || version == "" {
			return err
		}
		if body, err = w.open(ctx, path, version); err != nil {
			return err
		}
	}
}

// follow a watch until it ends, and return the last resourceVersion.
func (w *watcher) follow(path string, body io.ReadCloser) (version string, err error) {
	defer func() { _ = body.Close() }()
	lines := bufio.NewReaderSize(body, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		now := time.Now()
		if errors.Is(err, io.EOF) {
			return version, nil
		}
		if err != nil {
			return "", fmt.Errorf("watching %s: %w", path, err)
		}
		var event struct {
			Type   string
			Object object
		}
		if err := json.Unmarshal(line, &event); err != nil {
			return "", fmt.Errorf("watching %s: %w", path, err)
		}
		version = event.Object.Metadata.ResourceVersion
		if event.Type == "ADDED" || event.Type == "MODIFIED" {
			w.note(path, &event.Object, now)
		}
	}
}

func (w *watcher) note(path string, o *object, now time.Time) {
	key := types.NamespacedName{Namespace: o.Metadata.Namespace, Name: o.Metadata.Name}
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.states[key]
	if s == nil {
		s = &state{}
		w.states[key] = s
	}
	if path == virtualServicesPath {
		s.weights = weightsOf(o)
	} else {
		s.phase, s.reason, s.message, s.stable, s.step = o.Status.Phase, o.Status.Reason, o.Status.Message, o.Status.Stable, ""
		if o.Status.Step != nil {
			s.step = o.Status.Step.Name
		}
	}
	if w.wait != nil {
		w.wait.look(key, s, now)
	}
}

func weightsOf(o *object) map[string]int {
	weights := map[string]int{}
	for _, route := range o.Spec.HTTP {
		for _, r := range route.Route {
			weight := 100
			if r.Weight != nil {
				weight = *r.Weight
			} else if len(route.Route) > 1 {
				weight = 0
			}
			if weight > 0 {
				weights[r.Destination.Subset] += weight
			}
		}
	}
	return weights
}

func (w *wait) look(key types.NamespacedName, s *state, now time.Time) {
	if !w.left[key] || !w.condition(s) {
		return
	}
	delete(w.left, key)
	w.at[key] = now
	if len(w.left) == 0 {
		close(w.all)
	}
}

// expect begins to wait for a condition on changes from now on; one wait at a time.
func (w *watcher) expect(keys []types.NamespacedName, condition func(*state) bool) *wait {
	next := &wait{
		condition: condition, left: map[types.NamespacedName]bool{}, at: map[types.NamespacedName]time.Time{}, all: make(chan struct{}),
	}
	for _, key := range keys {
		next.left[key] = true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wait = next
	return next
}

// reach begins to wait for a condition that may hold already.
func (w *watcher) reach(keys []types.NamespacedName, condition func(*state) bool) *wait {
	next := w.expect(keys, condition)
	w.mu.Lock()
	defer w.mu.Unlock()
	now := time.Now()
	for _, key := range keys {
		if s := w.states[key]; s != nil {
			next.look(key, s, now)
		}
	}
	return next
}

// done waits for all, and returns when the condition first held for each.
func (w *watcher) done(ctx context.Context, what string, wait *wait) (map[types.NamespacedName]time.Time, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var err error
	select {
	case <-wait.all:
		return wait.at, nil
	case err = <-w.ended:
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = fmt.Errorf("not within %s", patience)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	left := slices.Collect(maps.Keys(wait.left))
	if len(left) == 0 {
		return wait.at, nil
	}
	s := w.states[left[0]]
	if s == nil {
		s = &state{}
	}
	return nil, fmt.Errorf("waiting until %s: %w; %d Rollouts are not, such as %s: %+v", what, err, len(left), left[0], *s)
}
