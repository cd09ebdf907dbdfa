package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/oddcert/oddcert/sensor/internal/health"
)

// service tells the service manager that has started the process, if one has, how the
// sensor is: sd_notify(3), sd_watchdog_enabled(3). Outside of one it does nothing.
type service struct {
	monitor  *health.Monitor
	log      *slog.Logger
	socket   *net.UnixConn // nil without a manager; it stays open, as a confined process opens none
	watchdog time.Duration // after which the manager wants to hear of it; 0 for never
}

// statusInterval is the time between two status lines.
const statusInterval = 10 * time.Second

// newService connects to the service manager.
func newService(m *health.Monitor, log *slog.Logger) *service {
	s := &service{monitor: m, log: log}
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return s
	}
	var err error
	if s.socket, err = net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"}); err != nil {
		log.Warn("service manager: not reached", "err", err)
		return s
	}
	text := os.Getenv("WATCHDOG_USEC")
	if pid := os.Getenv("WATCHDOG_PID"); text == "" || pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return s
	}
	usec, err := strconv.ParseInt(text, 10, 64)
	if err != nil || usec <= 0 {
		log.Warn("service manager: no watchdog, as its time makes no sense", "WATCHDOG_USEC", text)
		return s
	}
	s.watchdog = time.Duration(usec) * time.Microsecond
	return s
}

// run says that the sensor listens, and from time to time how it is, until ctx is done.
// The watchdog hears nothing while the sensor does no work: then only another process
// helps.
func (s *service) run(ctx context.Context) {
	s.ready()
	every := statusInterval
	if s.watchdog > 0 {
		every = min(every, s.watchdog/3)
	}
	t := time.NewTicker(every)
	defer t.Stop()
	stuck := false
	for {
		select {
		case <-ctx.Done():
			s.notify("STOPPING=1")
			return
		case <-t.C:
		}
		lines := []string{"STATUS=" + s.monitor.Status()}
		err := s.monitor.Alive(time.Now())
		if err == nil {
			lines = append(lines, "WATCHDOG=1")
		} else if !stuck {
			s.log.Error("the sensor does no work", "err", err)
		}
		stuck = err != nil
		s.notify(lines...)
	}
}

func (s *service) ready() { s.notify("READY=1", "STATUS="+s.monitor.Status()) }

// reloading says that rules and lists are read again, until ready.
func (s *service) reloading() { s.notify("RELOADING=1") }

// notify sends lines to the service manager. A message that does not reach it is not
// repeated: another one follows soon.
func (s *service) notify(lines ...string) {
	if s.socket != nil {
		_, _ = s.socket.Write([]byte(strings.Join(lines, "\n")))
	}
}
