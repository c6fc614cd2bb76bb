package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"sluice.dev/sluice/sandbox/bookinfo"
)

// Answer is what came back for a request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Seen is what a user saw in an answer.
type Seen struct {
	// Version of the service that is looked at; "" where the answer names none.
	Version string
	// RatingsUnavailable: a page whose reviews could not get ratings.
	RatingsUnavailable bool
}

// Judge tells what an answer shows, and by an error that it is a failure for
// its user.
type Judge func(Answer) (Seen, error)

// Page judges pages of bookinfo: whole ones with status 200 are good, and their
// version is reviews'.
func Page(a Answer) (Seen, error) {
	var page bookinfo.Page
	if a.Status != http.StatusOK {
		return Seen{}, fmt.Errorf("the page came with status %d", a.Status)
	}
	if err := json.Unmarshal(a.Body, &page); err != nil {
		return Seen{}, err
	}
	seen := Seen{Version: page.Reviews.Version, RatingsUnavailable: page.Reviews.Ratings == bookinfo.RatingsUnavailable}
	if !page.Complete() {
		return seen, errors.New(page.Details.Error + page.Reviews.Error)
	}
	return seen, nil
}

// Service judges answers of any app of the sandbox by its X-App-Version header:
// every status below 500 is good.
func Service(a Answer) (Seen, error) {
	seen := Seen{Version: a.Header.Get("X-App-Version")}
	if a.Status >= http.StatusInternalServerError {
		return seen, fmt.Errorf("the answer came with status %d: %.200s", a.Status, a.Body)
	}
	return seen, nil
}
