package webhook

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	"golang.org/x/sync/singleflight"
)

// The operator may get Secrets by name, not watch them. So their keys are remembered for as long as a key that was withdrawn
// may go on working; a signature that does not match has them read again, which a new key needs, once a second at most.
const (
	keysLast      = 10 * time.Second
	keysReread    = time.Second
	secretTimeout = 5 * time.Second
	// tooManyKeys is how many are remembered before those that have had their time are forgotten.
	tooManyKeys = 1000
)

// The keys of a webhook's Secret.
const (
	tokenKey    = "token"
	previousKey = "previous"
)

// ReadSecret reads a Secret as it is now.
type ReadSecret func(context.Context, types.NamespacedName) (*corev1.Secret, error)

// keyring remembers the keys of Secrets.
type keyring struct {
	read  ReadSecret
	clock clock.PassiveClock

	flight singleflight.Group
	mu     sync.Mutex
	known  map[types.NamespacedName]keys
}

// keys of one Secret: problem says why there are none.
type keys struct {
	values  [][]byte
	problem string
	at      time.Time
}

// of returns keys that are no older than age. An error means that they can not be told now.
func (k *keyring) of(ctx context.Context, secret types.NamespacedName, age time.Duration) (keys, error) {
	now := k.clock.Now()
	k.mu.Lock()
	known, found := k.known[secret]
	k.mu.Unlock()
	if found && now.Sub(known.at) < age {
		return known, nil
	}
	fresh, err, _ := k.flight.Do(secret.String(), func() (any, error) {
		// The first of several requests reads for all: its own end is not theirs.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), secretTimeout)
		defer cancel()
		return k.refresh(ctx, secret, now)
	})
	if err != nil {
		return keys{}, err
	}
	return fresh.(keys), nil
}

func (k *keyring) refresh(ctx context.Context, name types.NamespacedName, now time.Time) (keys, error) {
	secret, err := k.read(ctx, name)
	fresh := keys{at: now}
	switch {
	case apierrors.IsNotFound(err):
		fresh.problem = fmt.Sprintf("spec.webhook.secretRef: there is no Secret %s", name.Name)
	case err != nil:
		return keys{}, fmt.Errorf("read Secret %s: %w", name, err)
	default:
		fresh.values, fresh.problem = keysIn(secret)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.known == nil {
		k.known = map[types.NamespacedName]keys{}
	}
	if len(k.known) >= tooManyKeys {
		k.forgetOld(now)
	}
	k.known[name] = fresh
	return fresh, nil
}

func (k *keyring) forgetOld(now time.Time) {
	for name, known := range k.known {
		if now.Sub(known.at) >= keysLast {
			delete(k.known, name)
		}
	}
}

// keysIn are the token and the one before it. Without a token there are none: a Secret half written is no way in.
func keysIn(secret *corev1.Secret) (values [][]byte, problem string) {
	for _, name := range []string{tokenKey, previousKey} {
		// A file that was made with an editor ends with a newline, which the forge does not know of.
		value := bytes.TrimRight(secret.Data[name], "\r\n")
		if len(value) == 0 && name == tokenKey {
			return nil, fmt.Sprintf("spec.webhook.secretRef: Secret %s has no key %q, or an empty one", secret.Name, tokenKey)
		}
		if len(value) > 0 {
			values = append(values, value)
		}
	}
	return values, ""
}
