package webhook

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/types"
)

// FuzzDelivery sends anything to a GitSync of each provider: nothing panics, and nothing but the key's own signature gets past
// the verification.
func FuzzDelivery(f *testing.F) {
	names := []string{"github", "gitlab", "gitea", "bitbucket", "generic"}
	for i, from := range names {
		f.Add(uint8(i), sign(from, pushBody, key), "push", "application/json", []byte(pushBody))
		f.Add(uint8(i), "sha256=", "ping", "", []byte("{"))
	}
	f.Add(uint8(3), sign("bitbucket", `{"push":{"changes":[{}]}}`, key), "repo:push", "", []byte(`{"push":{"changes":[{}]}}`))
	f.Add(uint8(0), "sha1=00", "push", "application/x-www-form-urlencoded", []byte("payload=%7B%7D"))
	f.Fuzz(func(t *testing.T, which uint8, signature, name, contentType string, body []byte) {
		from := names[int(which)%len(names)]
		w := newWorld(t)
		w.hook("reviews", from)
		r := newReceiver(w.find, w.readSecret, newLedger(w.find, w.mark, w.clock, logr.Discard()), w.clock, logr.Discard())
		header := http.Header{}
		header.Set("Content-Type", contentType)
		header.Set(providers[from].header, signature)
		for _, h := range []string{"X-GitHub-Event", "X-Gitlab-Event", "X-Gitea-Event", "X-Event-Key"} {
			header.Set(h, name)
		}
		got := r.judge(context.Background(), types.NamespacedName{Namespace: "bookinfo", Name: "reviews"}, header, body)
		passed := got.status != http.StatusUnauthorized
		if want := genuine(from, header.Get(providers[from].header), body); passed != want {
			t.Errorf("%s with signature %q: %d %s, but the signature is genuine: %t", from, signature, got.status, got.Reason, want)
		}
		if passed && !slices.Contains([]string{ReasonAccepted, ReasonPing, ReasonOtherEvent, ReasonOtherRef, ReasonMalformed}, got.Reason) {
			t.Errorf("reason %s", got.Reason)
		}
	})
}

// genuine is the oracle: a signature that only who knows the key can make.
func genuine(from, signature string, body []byte) bool {
	if from == "gitlab" {
		return signature == key
	}
	mac := hmac.New(sha256.New, []byte(key))
	mac.Write(body)
	digest := signature
	if from != "gitea" {
		var found bool
		if digest, found = strings.CutPrefix(signature, "sha256="); !found {
			return false
		}
	}
	return strings.EqualFold(digest, hex.EncodeToString(mac.Sum(nil)))
}
