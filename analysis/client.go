package analysis

import (
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/prometheus/client_golang/api"
	promv1 "github.com/prometheus/client_golang/api/prometheus/v1"
	"github.com/prometheus/common/config"
)

// maxAnswer is the greatest answer of Prometheus that is read, in bytes.
const maxAnswer = 16 << 20

// NewClient makes a client of the Prometheus at an http or https URL. httpConfigFile, where given, holds its
// authorization, TLS, proxy and headers in Prometheus' own form of <http_config>. An answer over 16 MiB is an error.
func NewClient(address, httpConfigFile string) (promv1.API, error) {
	target, err := url.Parse(address)
	if err != nil || target.Host == "" || (target.Scheme != "http" && target.Scheme != "https") {
		return nil, fmt.Errorf("address of Prometheus: a URL like http://prometheus.istio-system:9090 is expected")
	}
	httpConfig := config.DefaultHTTPClientConfig
	if httpConfigFile != "" {
		loaded, _, err := config.LoadHTTPConfigFile(httpConfigFile)
		if err != nil {
			return nil, fmt.Errorf("HTTP configuration for Prometheus, %s: %w", httpConfigFile, err)
		}
		httpConfig = *loaded
	}
	// This transport keeps up to 1000 connections to a host; Go's own keeps 2.
	transport, err := config.NewRoundTripperFromConfig(httpConfig, "prometheus")
	if err != nil {
		return nil, fmt.Errorf("HTTP configuration for Prometheus, %s: %w", httpConfigFile, err)
	}
	client, err := api.NewClient(api.Config{Address: address, RoundTripper: limitAnswers{transport}})
	if err != nil {
		return nil, fmt.Errorf("client of Prometheus: %w", err)
	}
	return promv1.NewAPI(client), nil
}

// limitAnswers fails the reading of a body beyond maxAnswer, so that no answer fills the memory.
type limitAnswers struct{ http.RoundTripper }

func (l limitAnswers) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(request)
	if err == nil {
		response.Body = &limitedBody{ReadCloser: response.Body, left: maxAnswer}
	}
	return response, err
}

type limitedBody struct {
	io.ReadCloser
	left int64
}

func (b *limitedBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errAnswerTooLarge
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errAnswerTooLarge
	}
	return n, err
}
