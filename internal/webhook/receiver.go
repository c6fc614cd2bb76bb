package webhook

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/clock"

	v1 "sluice.dev/sluice/api/v1"
)

const route = "/hooks/gitsync/"

// FindSync reads a GitSync, from a cache.
type FindSync func(context.Context, types.NamespacedName) (*v1.GitSync, error)

// receiver answers deliveries. It writes nothing itself: what is to be marked it notes in the ledger.
type receiver struct {
	find   FindSync
	keys   *keyring
	ledger *ledger
	limits *limits
	bodies bodies
	clock  clock.PassiveClock
	log    logr.Logger
	// decoy is the key that signatures for GitSyncs that are not there are compared with.
	decoy []byte
}

func newReceiver(find FindSync, secret ReadSecret, book *ledger, c clock.PassiveClock, log logr.Logger) *receiver {
	return &receiver{
		find: find, keys: &keyring{read: secret, clock: c}, ledger: book,
		limits: newLimits(), bodies: newBodies(), clock: c, log: log, decoy: []byte(rand.Text()),
	}
}

// verdict on a delivery: what its sender is told and, when a GitSync was found, what its status is.
type verdict struct {
	answer
	sync *v1.GitSync
	// delivery is recorded; the zero value is not.
	delivery v1.Delivery
}

// ServeHTTP answers one request to the hook port.
func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	key, refused := r.admit(request)
	if refused != nil {
		requests.WithLabelValues(unknownProvider, refused.Reason).Inc()
		refused.write(w)
		return
	}
	body, release, refused := r.bodies.receive(w, request)
	defer release()
	if refused != nil {
		requests.WithLabelValues(unknownProvider, refused.Reason).Inc()
		refused.write(w)
		return
	}
	judged := r.judge(request.Context(), key, request.Header, body)
	r.note(key, judged)
	judged.write(w)
}

// admit looks at what needs no body: the path, the method and how much there is to do.
func (r *receiver) admit(request *http.Request) (key types.NamespacedName, refused *answer) {
	key, found := syncOf(request.URL.Path)
	switch {
	case !found:
		return key, &notFound
	case request.Method != http.MethodPost:
		return key, &methodNotAllowed
	case !r.limits.allow(request.URL.Path, r.clock.Now()):
		return key, &tooMany
	}
	return key, nil
}

func syncOf(path string) (key types.NamespacedName, found bool) {
	rest, found := strings.CutPrefix(path, route)
	namespace, name, both := strings.Cut(rest, "/")
	if !found || !both || namespace == "" || name == "" || strings.Contains(name, "/") {
		return key, false
	}
	return types.NamespacedName{Namespace: namespace, Name: name}, true
}

// judge verifies a delivery. Strangers get the same answers for a GitSync that is there and for one that is not.
func (r *receiver) judge(ctx context.Context, key types.NamespacedName, header http.Header, body []byte) verdict {
	sync, err := r.find(ctx, key)
	if err != nil && !apierrors.IsNotFound(err) {
		r.log.Error(err, "look up a GitSync", "gitsync", key)
		return verdict{answer: unavailable}
	}
	if err != nil || sync.Spec.Webhook == nil || sync.DeletionTimestamp != nil {
		return r.judgeNobody(header, body)
	}
	from, known := providers[sync.Spec.Webhook.Provider]
	if !known {
		return r.judgeNobody(header, body) // the API server refuses such a provider
	}
	if refused := r.verify(ctx, sync, from, header, body); refused != nil {
		return *refused
	}
	told, err := from.read(header, body)
	if err != nil {
		return r.known(sync, malformed(err.Error()), err.Error())
	}
	return r.follow(sync, told)
}

// judgeNobody does the work of a comparison, so that the answer takes as long as another.
func (r *receiver) judgeNobody(header http.Header, body []byte) verdict {
	if !signed(header) {
		return verdict{answer: missing}
	}
	validPrefixed(sha256Prefix+strings.Repeat("0", 64), body, r.decoy)
	return verdict{answer: mismatch}
}

func signed(header http.Header) bool {
	for _, p := range providers {
		if header.Get(p.header) != "" {
			return true
		}
	}
	return false
}

// verify returns what to refuse a delivery with, or nil.
func (r *receiver) verify(ctx context.Context, sync *v1.GitSync, from provider, header http.Header, body []byte) *verdict {
	signature := header.Get(from.header)
	if signature == "" {
		refused := mismatch
		if !signed(header) {
			refused = missing
		}
		v := r.refused(sync, refused, ReasonSignatureMissing, "it has no header "+from.header+", which a delivery from "+sync.Spec.Webhook.Provider+" needs")
		return &v
	}
	secret := types.NamespacedName{Namespace: sync.Namespace, Name: sync.Spec.Webhook.SecretRef.Name}
	var held keys
	// A key that is not known yet may have been added since the Secret was read.
	for _, age := range []time.Duration{keysLast, keysReread} {
		var err error
		if held, err = r.keys.of(ctx, secret, age); err != nil {
			r.log.Error(err, "read a webhook's Secret", "gitsync", types.NamespacedName{Namespace: sync.Namespace, Name: sync.Name})
			v := r.refused(sync, unavailable, ReasonUnavailable, "its signature can not be verified: "+err.Error())
			return &v
		}
		if matches(from, signature, body, held.values) {
			return nil
		}
	}
	v := r.refused(sync, mismatch, ReasonSignatureMismatch, fmt.Sprintf(
		"the signature in %s is not that of the body with a key of Secret %s", from.header, secret.Name))
	if held.problem != "" {
		v = r.refused(sync, mismatch, ReasonSecretMissing, held.problem)
	}
	return &v
}

// matches tries every key, so that the time says nothing about which one it was.
func matches(from provider, signature string, body []byte, values [][]byte) bool {
	valid := false
	for _, value := range values {
		valid = from.valid(signature, body, value) || valid
	}
	return valid
}

// follow says what comes of a delivery that was verified.
func (r *receiver) follow(sync *v1.GitSync, told event) verdict {
	switch {
	case told.kind == kindPing:
		return r.known(sync, ping, "a ping, which was verified")
	case told.kind == kindOther:
		return r.known(sync, answer{http.StatusOK, ReasonOtherEvent, fmt.Sprintf("verified; of %q nothing follows", told.name)},
			fmt.Sprintf("%q, of which nothing follows: pushes alone are fetched", told.name))
	case !concerns(sync.Spec.Ref, told.refs):
		message := fmt.Sprintf("a push of %s, which is not the ref that is followed", strings.Join(told.refs, ", "))
		return r.known(sync, answer{http.StatusOK, ReasonOtherRef, message}, message)
	case sync.Spec.Suspend:
		return r.known(sync, suspended, "a "+told.name+" was verified; spec.suspend is true: fetched once that is false")
	}
	message := "a " + told.name + " was verified: fetch now"
	if len(told.refs) > 0 {
		message = fmt.Sprintf("a push of %s was verified: fetch now", strings.Join(told.refs, ", "))
	}
	return r.known(sync, accepted, message)
}

func (r *receiver) refused(sync *v1.GitSync, a answer, reason, message string) verdict {
	v := r.known(sync, a, "Refused: "+message)
	v.delivery.Reason = reason
	return v
}

// maxMessage bounds what a delivery may bring into a status, in bytes.
const maxMessage = 300

func (r *receiver) known(sync *v1.GitSync, a answer, message string) verdict {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "") + "…"
	}
	return verdict{answer: a, sync: sync, delivery: v1.Delivery{Time: metav1.NewMicroTime(r.clock.Now()), Reason: a.Reason, Message: message}}
}

// note counts and logs a verdict, and has it marked.
func (r *receiver) note(key types.NamespacedName, judged verdict) {
	from := unknownProvider
	if judged.sync != nil {
		from = judged.sync.Spec.Webhook.Provider
	}
	requests.WithLabelValues(from, judged.Reason).Inc()
	if judged.sync == nil {
		return
	}
	level := r.log.V(1) // a stranger is not to fill the log
	if judged.verified() {
		level = r.log
	}
	level.Info("Delivery to the webhook", "gitsync", key, "provider", from, "reason", judged.delivery.Reason, "message", judged.delivery.Message)
	r.ledger.add(key, entry{delivery: judged.delivery, fetch: judged.Reason == ReasonAccepted, verified: judged.verified()})
}

// verified is true of deliveries whose signature was right.
func (v verdict) verified() bool {
	return v.status < http.StatusBadRequest || v.Reason == ReasonMalformed
}
