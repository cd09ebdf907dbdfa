package capture

// Filtered and OpenLive are completed by the live part.
func Filtered(s Source, expr string) (Source, error) { return s, nil }

type LiveOptions struct {
	Interfaces []string
	Workers    int
	Filter     string
}

func OpenLive(LiveOptions) ([]Source, error) { return nil, nil }
