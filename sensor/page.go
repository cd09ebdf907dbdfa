package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/oddcert/oddcert/sensor/internal/health"
	"github.com/oddcert/oddcert/sensor/internal/output"
	"github.com/oddcert/oddcert/sensor/internal/page"
)

// listening is what answers requests of others: metrics, and the page where there is one.
type listening struct {
	access *health.Access
	page   *page.Page // nil without
	end    func()
}

// listen begins to answer requests, where the configuration says so.
func (s *sensor) listen() (*listening, error) {
	c := s.config
	l := &listening{end: func() {}}
	if c.Metrics == "" {
		return l, nil
	}
	var err error
	if l.access, err = health.OpenAccess(c.Access); err != nil {
		return nil, err
	}
	service := health.Service{Access: l.access}
	if c.Page {
		l.page = page.New(page.Config{Sensor: c.observer().Name, Version: version(), Access: l.access, Monitor: s.monitor, Log: s.log()})
		s.finders = append(s.finders, l.page.See)
		service.Page, service.Streams = l.page, page.MaxStreams
	}
	listener, err := health.Listen(c.Metrics)
	if err == nil {
		err = service.Check(listener.Addr())
	}
	if err != nil {
		l.close()
		return nil, err
	}
	ctx, stop := context.WithCancel(s.cmd.Context())
	l.end = stop
	go s.monitor.Serve(ctx, listener, service)
	return l, nil
}

// watch tells the monitor and the page what was counted.
func (l *listening) watch(m *health.Monitor) func(*output.Counters) {
	if l.page == nil {
		return m.See
	}
	return func(c *output.Counters) { m.See(c); l.page.Watch(c) }
}

// sections are the counters of the outputs and of the page.
func (l *listening) sections(others func() []output.Section) func() []output.Section {
	if l.page == nil {
		return others
	}
	return func() []output.Section { return append(others(), l.page.Section()) }
}

// ask has the page ask the inventory, and send evidence, where there are these.
func (l *listening) ask(s *sensor) error {
	if l.page == nil {
		return nil
	}
	if s.inventory != nil {
		l.page.Ask(s.inventory)
	}
	if s.config.Evidence == "" {
		return nil
	}
	return l.page.SendFrom(s.config.Evidence)
}

// reload reads the token and the certificate again.
func (l *listening) reload(s *sensor) {
	if err := l.access.Reload(); err != nil {
		s.log().Error("token and certificate of the listener: those in use are kept", "err", err)
	}
}

// close ends all answers.
func (l *listening) close() {
	l.end()
	if l.page != nil {
		l.page.Close()
	}
}

// checkPage finds what is wrong with the options of the page: it is not for everybody
// whom a network leads here.
func (c *config) checkPage() error {
	var errs []error
	if err := c.Access.Validate(); err != nil {
		errs = append(errs, fmt.Errorf("metrics-certificate-file, metrics-key-file: %w", err))
	}
	if c.Metrics == "" && (c.Page || c.Access != (health.AccessFiles{})) {
		errs = append(errs, errors.New("page, metrics-token-file, metrics-certificate-file: there is no listener that they could be for: name its address with --metrics"))
	}
	if c.Page && !health.IsLoopback(c.Metrics) && (c.Access.Token == "" || c.Access.Certificate == "") {
		errs = append(errs, fmt.Errorf("page: other machines can reach %s, so it needs --metrics-token-file, --metrics-certificate-file and --metrics-key-file", c.Metrics))
	}
	return errors.Join(errs...)
}
