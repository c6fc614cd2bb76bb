package webhook

import (
	"encoding/json"
	"net/http"

	v1 "sluice.dev/sluice/api/v1"
)

// answer is what a sender is told, as JSON: a reason that programs can tell apart and a message for people.
type answer struct {
	status  int
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// Reasons of deliveries. ReasonSecretMissing stands in status only: a sender is told that its signature does not match.
const (
	ReasonAccepted          = "Accepted"
	ReasonPing              = "Ping"
	ReasonOtherEvent        = "OtherEvent"
	ReasonOtherRef          = "OtherRef"
	ReasonSuspended         = v1.ReasonSuspended
	ReasonMalformed         = "Malformed"
	ReasonSignatureMissing  = "SignatureMissing"
	ReasonSignatureMismatch = "SignatureMismatch"
	ReasonSecretMissing     = "SecretMissing"
	ReasonNotFound          = "NotFound"
	ReasonMethodNotAllowed  = "MethodNotAllowed"
	ReasonTimeout           = "Timeout"
	ReasonTooLarge          = "TooLarge"
	ReasonTooManyRequests   = "TooManyRequests"
	ReasonUnavailable       = "Unavailable"
)

var (
	accepted         = answer{http.StatusAccepted, ReasonAccepted, "the repository is fetched now"}
	ping             = answer{http.StatusOK, ReasonPing, "the signature is right; pushes are fetched at once"}
	suspended        = answer{http.StatusOK, ReasonSuspended, "the signature is right; spec.suspend is true: it is fetched once that is false"}
	missing          = answer{http.StatusUnauthorized, ReasonSignatureMissing, "a signature is needed: no header carries one"}
	mismatch         = answer{http.StatusUnauthorized, ReasonSignatureMismatch, "the signature does not match; status.lastDelivery of the GitSync, if there is one, says more"}
	notFound         = answer{http.StatusNotFound, ReasonNotFound, "the path must be /hooks/gitsync/NAMESPACE/NAME"}
	methodNotAllowed = answer{http.StatusMethodNotAllowed, ReasonMethodNotAllowed, "the method must be POST"}
	timedOut         = answer{http.StatusRequestTimeout, ReasonTimeout, "the body did not come in time, which is 10s"}
	tooLarge         = answer{http.StatusRequestEntityTooLarge, ReasonTooLarge, "the body must not be larger than 1 MiB"}
	tooMany          = answer{http.StatusTooManyRequests, ReasonTooManyRequests, "too many deliveries: try again in a second; a fetch that was accepted is not lost"}
	unavailable      = answer{http.StatusServiceUnavailable, ReasonUnavailable, "the delivery can not be verified now: try again"}
)

func malformed(message string) answer {
	return answer{http.StatusBadRequest, ReasonMalformed, message}
}

func (a answer) write(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Content-Type", "application/json")
	header.Set("Cache-Control", "no-store")
	switch a.status {
	case http.StatusMethodNotAllowed:
		header.Set("Allow", http.MethodPost)
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		header.Set("Retry-After", "1")
	}
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a) // a sender that went away needs no answer
}
