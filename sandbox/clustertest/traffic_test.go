package clustertest

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/api"
	prometheus "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/model"
)

// seen counts answers: by status, 000 where there was none, and by the version of reviews, which names its pod in each.
type seen struct {
	total              int
	statuses, versions map[string]int
}

var answeredBy = regexp.MustCompile(`"podname" ?: ?"reviews-(v[0-9]+)-`)

// read counts the answers in what the client's shell prints: bodies, and after each a line "status: 200".
func (s *seen) read(printed *bufio.Scanner) {
	s.statuses, s.versions = map[string]int{}, map[string]int{}
	version := ""
	for printed.Scan() {
		if match := answeredBy.FindStringSubmatch(printed.Text()); match != nil {
			version = match[1]
		}
		status, ends := strings.CutPrefix(printed.Text(), "status: ")
		if !ends {
			continue
		}
		s.total++
		s.statuses[status]++
		if version != "" {
			s.versions[version]++
		}
		version = ""
	}
}

func (s *seen) String() string {
	return fmt.Sprintf("%d answers, statuses %v, versions %v", s.total, s.statuses, s.versions)
}

// asking is the command that has a client ask for a URL a number of times, with a pause between.
func (s *stage) asking(ctx context.Context, client string, n int, pause, url string, headers ...string) *exec.Cmd {
	curl := []string{"curl", "-s", "-m", "10", "-w", `'\nstatus: %{http_code}\n'`}
	for _, header := range headers {
		curl = append(curl, "-H", "'"+header+"'")
	}
	script := fmt.Sprintf("for i in $(seq %d); do %s '%s'; sleep %s; done; true", n, strings.Join(curl, " "), url, pause)
	return exec.CommandContext(ctx, "kubectl", "--kubeconfig="+world.kubeConfig, "--namespace="+s.namespace,
		"exec", "deployment/"+client, "--container=curl", "--", "sh", "-c", script)
}

// ask has a client ask n times, one request right after the other.
func (s *stage) ask(t *testing.T, client string, n int, url string, headers ...string) *seen {
	t.Helper()
	printed, err := run(s.asking(t.Context(), client, n, "0", url, headers...))
	if err != nil {
		t.Fatal(err)
	}
	answers := &seen{}
	answers.read(bufio.NewScanner(strings.NewReader(printed)))
	return answers
}

// waitAnswers asks until all of twenty answers in a row have a status.
func (s *stage) waitAnswers(t *testing.T, client, status, url string, headers ...string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%s gets %s from %s", client, status, url), func() (bool, string) {
		answers := s.ask(t, client, 20, url, headers...)
		return answers.statuses[status] == 20, answers.String()
	})
}

// users has a client in the mesh ask for reviews until it leaves, and for a quarter of an hour at most.
func (s *stage) users(t *testing.T, headers ...string) (leave func() *seen) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	command := s.asking(ctx, "client", 15*60*10, "0.05", reviews, headers...)
	pipe, err := command.StdoutPipe()
	if err == nil {
		err = command.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	answers, over := &seen{}, make(chan struct{})
	go func() {
		defer close(over)
		answers.read(bufio.NewScanner(pipe))
	}()
	return func() *seen {
		cancel()
		<-over
		_ = command.Wait() // it was killed
		return answers
	}
}

// query gives a query's value by one of its labels; $NS stands for the namespace.
func (s *stage) query(t *testing.T, label, query string) map[string]float64 {
	t.Helper()
	client, err := api.NewClient(api.Config{Address: world.prometheus})
	if err != nil {
		t.Fatal(err)
	}
	result, _, _, err := prometheus.NewAPI(client).Query(t.Context(), strings.ReplaceAll(query, "$NS", s.namespace), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	vector, ok := result.(model.Vector)
	if !ok {
		t.Fatalf("%s gave a %s, want a vector", query, result.Type())
	}
	values := map[string]float64{}
	for _, sample := range vector {
		values[string(sample.Metric[model.LabelName(label)])] = float64(sample.Value)
	}
	return values
}
