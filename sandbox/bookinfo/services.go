package bookinfo

import (
	"fmt"
	"net/http"
	"strconv"
	"time"
)

func (a *App) serveDetails(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"id": r.PathValue("id"), "author": "William Shakespeare", "year": 1595, "type": "paperback",
		"pages": 200, "publisher": "PublisherA", "language": "English", "version": a.options.Version,
	})
}

// ratingsAnswer is what ratings says: stars by reviewer.
type ratingsAnswer struct {
	ID      string         `json:"id"`
	Ratings map[string]int `json:"ratings"`
	Version string         `json:"version"`
}

func (a *App) serveRatings(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, ratingsAnswer{
		ID: r.PathValue("id"), Ratings: map[string]int{"Reviewer1": 5, "Reviewer2": 4}, Version: a.options.Version,
	})
}

func (a *App) serveEcho(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, map[string]any{
		"app": a.options.Kind, "version": a.options.Version, "pod": a.options.Pod,
		"method": r.Method, "host": r.Host, "url": r.URL.RequestURI(), "headers": r.Header,
	})
}

// reviewsAnswer is what reviews says.
type reviewsAnswer struct {
	ID      string   `json:"id"`
	Pod     string   `json:"podname"`
	Version string   `json:"version"`
	Ratings string   `json:"ratings"` // see Page
	Reviews []review `json:"reviews"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"`
}

type rating struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

type reviews struct {
	app     *App
	rated   bool
	color   string
	timeout time.Duration
}

func newReviews(a *App) (*reviews, error) {
	env := a.options.Env
	r := &reviews{app: a, rated: a.options.Version != "v1", color: env["STAR_COLOR"], timeout: 10 * time.Second}
	var err error
	if v := env["ENABLE_RATINGS"]; v != "" {
		if r.rated, err = strconv.ParseBool(v); err != nil {
			return nil, fmt.Errorf("ENABLE_RATINGS %q: want true or false", v)
		}
	}
	if v := env["RATINGS_TIMEOUT"]; v != "" {
		if r.timeout, err = time.ParseDuration(v); err != nil || r.timeout <= 0 {
			return nil, fmt.Errorf("RATINGS_TIMEOUT %q: want a duration such as 2.5s", v)
		}
	}
	if r.color == "" {
		r.color = map[bool]string{true: "red", false: "black"}[a.options.Version == "v3"]
	}
	return r, nil
}

func (s *reviews) serve(w http.ResponseWriter, r *http.Request) {
	a := s.app
	result := reviewsAnswer{
		ID: r.PathValue("id"), Pod: a.options.Pod, Version: a.options.Version, Ratings: RatingsNone,
		Reviews: []review{
			{Reviewer: "Reviewer1", Text: "An extremely entertaining play by Shakespeare."},
			{Reviewer: "Reviewer2", Text: "Absolutely fun and entertaining."},
		},
	}
	if s.rated {
		result.Ratings = s.rate(r, result.Reviews)
	}
	answer(w, http.StatusOK, result)
}

// rate adds the stars to the reviews. Reviews without them are still reviews.
func (s *reviews) rate(r *http.Request, all []review) string {
	var got ratingsAnswer
	url := s.app.peerURL("RATINGS_HOSTNAME", Ratings) + "/ratings/" + r.PathValue("id")
	_, err := s.app.call(r, "", url, s.timeout, &got)
	for i := range all {
		all[i].Rating = &rating{Stars: got.Ratings[all[i].Reviewer], Color: s.color}
		if err != nil {
			all[i].Rating = &rating{Error: "Ratings service is currently unavailable"}
		}
	}
	if err != nil {
		return RatingsUnavailable
	}
	return RatingsAvailable
}
