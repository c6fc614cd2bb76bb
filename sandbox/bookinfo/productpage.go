package bookinfo

import (
	"net/http"
	"time"
)

// What a page says about ratings.
const (
	RatingsNone        = "none" // the version of reviews asks for none
	RatingsAvailable   = "available"
	RatingsUnavailable = "unavailable"
)

// Page is productpage's answer. Like the sample's page it comes with status 200
// even where a part of it could not be had.
type Page struct {
	Version string      `json:"version"`
	User    string      `json:"user,omitempty"`
	Details PageDetails `json:"details"`
	Reviews PageReviews `json:"reviews"`
}

// PageDetails is the part that comes from details.
type PageDetails struct {
	Status int    `json:"status"` // 0: no answer in time
	Error  string `json:"error,omitempty"`
}

// PageReviews is the part that comes from reviews.
type PageReviews struct {
	Status  int    `json:"status"`            // 0: no answer in time
	Version string `json:"version,omitempty"` // the version that answered
	Pod     string `json:"pod,omitempty"`
	Ratings string `json:"ratings,omitempty"` // one of the constants
	Error   string `json:"error,omitempty"`
}

// Complete tells whether the user saw all that the page promises. Reviews
// without ratings count as complete, as the sample's users see them.
func (p Page) Complete() bool {
	return p.Details.Status == http.StatusOK && p.Reviews.Status == http.StatusOK
}

const (
	userCookie     = "bookinfo-user"
	pageTimeout    = 3 * time.Second // of each call
	reviewsTries   = 2
	reviewsMissing = "Sorry, product reviews are currently unavailable for this book."
	detailsMissing = "Sorry, product details are currently unavailable for this book."
)

type productPage struct {
	app              *App
	details, reviews string
}

func newProductPage(a *App) *productPage {
	return &productPage{
		app:     a,
		details: a.peerURL("DETAILS_HOSTNAME", Details) + "/details/0",
		reviews: a.peerURL("REVIEWS_HOSTNAME", Reviews) + "/reviews/0",
	}
}

func (p *productPage) serve(w http.ResponseWriter, r *http.Request) {
	page := Page{Version: p.app.options.Version, User: user(r)}
	var details map[string]any
	var err error
	if page.Details.Status, err = p.app.call(r, page.User, p.details, pageTimeout, &details); err != nil {
		page.Details.Error = detailsMissing
	}
	page.Reviews = p.askReviews(r, page.User)
	answer(w, http.StatusOK, page)
}

// askReviews tries twice: the sample's retry that is not the mesh's.
func (p *productPage) askReviews(r *http.Request, user string) (part PageReviews) {
	for range reviewsTries {
		var got reviewsAnswer
		status, err := p.app.call(r, user, p.reviews, pageTimeout, &got)
		if err == nil {
			return PageReviews{Status: status, Version: got.Version, Pod: got.Pod, Ratings: got.Ratings}
		}
		part = PageReviews{Status: status, Error: reviewsMissing}
	}
	return part
}

// user is who is signed in: by cookie, or as the end-user header claims.
func user(r *http.Request) string {
	if c, err := r.Cookie(userCookie); err == nil {
		return c.Value
	}
	return r.Header.Get("End-User")
}

func (p *productPage) login(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: userCookie, Value: r.FormValue("username"), Path: "/", HttpOnly: true})
	http.Redirect(w, r, "/productpage", http.StatusFound)
}

func (p *productPage) logout(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, &http.Cookie{Name: userCookie, Path: "/", MaxAge: -1, HttpOnly: true})
	http.Redirect(w, r, "/productpage", http.StatusFound)
}

func (p *productPage) static(w http.ResponseWriter, r *http.Request) {
	answer(w, http.StatusOK, map[string]string{"static": r.URL.Path})
}

func (p *productPage) products(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, []map[string]any{{"id": 0, "title": "The Comedy of Errors"}})
}
