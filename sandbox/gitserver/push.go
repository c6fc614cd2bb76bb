package gitserver

import (
	"context"
	"net/http"
	"strings"
)

// Push is a ref that a client has moved. Commit is where it is now; empty when it was deleted.
type Push struct {
	// Repository is the name that CreateRepository was given.
	Repository string
	// Ref in full: refs/heads/main.
	Ref    string
	Commit string
}

// OnPush has tell called for each ref of each push to come, after the push was taken in, as a forge tells its webhooks. It is
// called while the client may still be waiting for the last of the answer. Nil ends it.
func (s *Server) OnPush(tell func(Push)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.onPush = tell
}

// telling puts the telling around Git's handler.
func (s *Server) telling(git http.Handler, tell func(Push)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, isPush := strings.CutSuffix(strings.TrimPrefix(r.URL.Path, "/"), ".git/git-receive-pack")
		if !isPush || tell == nil || !repositoryName.MatchString(name) {
			git.ServeHTTP(w, r)
			return
		}
		ctx := context.WithoutCancel(r.Context()) // the client need not wait for what follows
		before := s.refs(ctx, name)
		git.ServeHTTP(w, r)
		after := s.refs(ctx, name)
		for ref, commit := range after {
			if before[ref] != commit {
				tell(Push{Repository: name, Ref: ref, Commit: commit})
			}
		}
		for ref := range before {
			if _, there := after[ref]; !there {
				tell(Push{Repository: name, Ref: ref})
			}
		}
	})
}

// refs of a repository; none when they can not be read, which the client learns from its own request.
func (s *Server) refs(ctx context.Context, repository string) map[string]string {
	listed, err := git(ctx, s.RepositoryPath(repository), "for-each-ref", "--format=%(refname) %(objectname)")
	if err != nil {
		return nil
	}
	refs := map[string]string{}
	for line := range strings.Lines(listed) {
		ref, commit, _ := strings.Cut(strings.TrimSpace(line), " ")
		if ref != "" {
			refs[ref] = commit
		}
	}
	return refs
}
