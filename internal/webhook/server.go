package webhook

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/net/netutil"
	"k8s.io/utils/clock"
)

const (
	deliveryTime = 10 * time.Second
	headerTime   = 5 * time.Second
	answerTime   = 20 * time.Second
	idleTime     = time.Minute
	closingTime  = 5 * time.Second

	maxHeader      = 16 << 10
	maxConnections = 512
)

// Dependencies of a Server; all are needed.
type Dependencies struct {
	// Find reads a GitSync from a cache: strangers may have it called often.
	Find FindSync
	// Secret reads a Secret live.
	Secret ReadSecret
	// Mark writes lastDelivery and, if it is set, fetchRequested into a GitSync's status.
	Mark WriteMark
	// Clock stamps the marks.
	Clock clock.WithTicker
	Log   logr.Logger
}

// Server is the hook port. It runs on every replica.
type Server struct {
	// Address to listen on, host:port.
	Address string

	handler http.Handler
	ledger  *ledger
	// patience is how long a sender may take for header and body.
	patience time.Duration
}

// NewServer makes a server that listens once it is started.
func NewServer(address string, d Dependencies) *Server {
	book := newLedger(d.Find, d.Mark, d.Clock, d.Log)
	return &Server{Address: address, handler: newReceiver(d.Find, d.Secret, book, d.Clock, d.Log), ledger: book, patience: deliveryTime}
}

// NeedLeaderElection tells the manager that every replica receives.
func (s *Server) NeedLeaderElection() bool { return false }

// Start receives until the context ends; what was accepted until then is marked.
func (s *Server) Start(ctx context.Context) error {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("open the hook port: %w", err)
	}
	return s.Serve(ctx, listener)
}

// Serve is Start on a listener, which it closes.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTime, ReadTimeout: s.patience, WriteTimeout: answerTime, IdleTimeout: idleTime,
		MaxHeaderBytes: maxHeader,
		BaseContext:    func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	// The ledger ends after the last delivery was answered.
	marking, stopMarking := context.WithCancel(context.WithoutCancel(ctx))
	defer stopMarking()
	var background sync.WaitGroup
	background.Go(func() { s.ledger.run(marking) })
	background.Go(func() {
		select {
		case <-ctx.Done():
		case <-marking.Done():
		}
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closingTime)
		defer cancel()
		if err := server.Shutdown(closing); err != nil {
			_ = server.Close()
		}
		stopMarking()
	})
	err := server.Serve(netutil.LimitListener(listener, maxConnections))
	if !errors.Is(err, http.ErrServerClosed) {
		stopMarking()
		background.Wait()
		return fmt.Errorf("serve the hook port: %w", err)
	}
	background.Wait()
	return nil
}
