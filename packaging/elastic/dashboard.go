package elastic

import "fmt"

// Panel is a chart or a table of the dashboard.
type Panel struct {
	Title  string
	Stream string // of one data view
	Query  string // which records count, in Lucene's syntax
	Grid   Grid

	// Columns are what is grouped by, and then what is counted.
	Columns []Column
	Chart   Chart
}

// Grid is the place of a panel; the dashboard is 48 wide.
type Grid struct {
	X int    `json:"x"`
	Y int    `json:"y"`
	W int    `json:"w"`
	H int    `json:"h"`
	I string `json:"i"` // the panel's index
}

// Chart is how a panel is drawn.
type Chart string

// The charts. Bars and lines have the first column on the horizontal axis, the
// second, if it groups, as colors, and the last as height.
const (
	Bars  Chart = "bar_stacked"
	Share Chart = "bar_horizontal_percentage_stacked"
	Lines Chart = "line"
	Donut Chart = "donut"
	Table Chart = "table"
)

// Column is a column of a panel, as Lens has it.
type Column struct {
	Label       string   `json:"label"`
	CustomLabel bool     `json:"customLabel"`
	DataType    string   `json:"dataType"`
	Operation   string   `json:"operationType"`
	Field       string   `json:"sourceField,omitempty"`
	Scale       string   `json:"scale"`
	Bucketed    bool     `json:"isBucketed"`
	TimeScale   string   `json:"timeScale,omitempty"`
	References  []string `json:"references,omitempty"`
	Params      object   `json:"params"`
}

// columnID names the columns of a panel by their place.
func columnID(i int) string { return fmt.Sprintf("column-%d", i) }

// byTime groups by time.
func byTime() Column {
	return Column{Label: "Time", DataType: "date", Operation: "date_histogram", Field: "@timestamp", Scale: "interval", Bucketed: true,
		Params: object{"interval": "auto", "includeEmptyRows": true, "dropPartials": false}}
}

// by groups by the size values of a field that are first by the column at order,
// in descending order.
func by(label, dataType, field string, size, order int) Column {
	return Column{Label: label, DataType: dataType, Operation: "terms", Field: field, Scale: "ordinal", Bucketed: true,
		Params: object{"size": size, "orderBy": object{"type": "column", "columnId": columnID(order)}, "orderDirection": "desc",
			"otherBucket": false, "missingBucket": false, "parentFormat": object{"id": "terms"}}}
}

// number is a number of something in a group.
func number(label, operation, field string) Column {
	return Column{Label: label, DataType: "number", Operation: operation, Field: field, Scale: "ratio", Params: object{"emptyAsNull": true}}
}

// records counts records.
func records(label string) Column { return number(label, "count", "___records___") }

// moment is the first or the last time in a field, by the operation min or max.
func moment(label, operation, field string) Column {
	c := number(label, operation, field)
	c.DataType = "date"
	return c
}

// last is the value in the newest record that has one.
func last(label, dataType, field string) Column {
	scale := "ratio"
	if dataType == "string" {
		scale = "ordinal"
	}
	return Column{Label: label, DataType: dataType, Operation: "last_value", Field: field, Scale: scale,
		Params: object{"sortField": "@timestamp", "showArrayValues": false}}
}

// rate is how fast the counter in the column at of grows in a second.
func rate(label string, of int) Column {
	return Column{Label: label, DataType: "number", Operation: "counter_rate", Scale: "ratio", TimeScale: "s",
		References: []string{columnID(of)}, Params: object{}}
}

// live are the statistics of live sensors.
const live = "NOT " + replay + ":*"

// Panels are the panels of the dashboard, from the top.
var Panels = []Panel{
	{
		Title: "Alerts by verdict", Stream: alerts, Chart: Bars, Grid: Grid{X: 0, Y: 0, W: 32, H: 11},
		Columns: []Column{byTime(), by("Verdict", "string", "oddcert.verdict", 12, 2), records("Alerts")},
	},
	{
		Title: "Alerts by sensor", Stream: alerts, Chart: Table, Grid: Grid{X: 32, Y: 0, W: 16, H: 11},
		Columns: []Column{by("Sensor", "string", "observer.name", 100, 2), by("Rule", "string", "rule.name", 10, 2), records("Alerts"),
			number("Flows", "unique_count", "network.community_id")},
	},
	{
		Title: "Servers by certificate that does not verify", Stream: sightings, Query: untrusted, Chart: Table, Grid: Grid{X: 0, Y: 11, W: 24, H: 13},
		Columns: []Column{by("Certificate (SHA-256)", "string", "oddcert.certificate.hash.sha256", 20, 2), by("Subject", "string", "oddcert.certificate.subject", 1, 2),
			number("Servers", "unique_count", "destination.ip"), number("Sensors", "unique_count", "observer.name")},
	},
	{
		Title: "First-seen certificates", Stream: certificates, Query: "oddcert.certificate.role:leaf", Chart: Table, Grid: Grid{X: 24, Y: 11, W: 24, H: 13},
		Columns: []Column{by("Certificate (SHA-256)", "string", "oddcert.certificate.hash.sha256", 20, 3), by("Subject", "string", "oddcert.certificate.subject", 1, 3),
			by("Issuer", "string", "oddcert.certificate.issuer", 1, 3), moment("First seen", "min", "@timestamp"), number("Sensors", "unique_count", "observer.name")},
	},
	{
		Title: "Certificates that expire within 30 days", Stream: certificates, Query: "oddcert.certificate.role:leaf AND oddcert.certificate.not_after:[now TO now+30d]", Chart: Table, Grid: Grid{X: 0, Y: 24, W: 24, H: 11},
		Columns: []Column{by("Subject", "string", "oddcert.certificate.subject", 50, 3), by("Issuer", "string", "oddcert.certificate.issuer", 1, 3),
			moment("Expires", "min", "oddcert.certificate.not_after"), number("Sensors", "unique_count", "observer.name")},
	},
	{
		Title: "Expired certificates in use", Stream: certificates, Query: "oddcert.certificate.role:leaf AND oddcert.certificate.not_after:[* TO now]", Chart: Table, Grid: Grid{X: 24, Y: 24, W: 24, H: 11},
		Columns: []Column{by("Subject", "string", "oddcert.certificate.subject", 50, 3), by("Issuer", "string", "oddcert.certificate.issuer", 1, 3),
			moment("Expired", "max", "oddcert.certificate.not_after"), number("Sensors", "unique_count", "observer.name")},
	},
	{
		Title: "TLS versions", Stream: handshakes, Chart: Donut, Grid: Grid{X: 0, Y: 35, W: 12, H: 11},
		Columns: []Column{by("Protocol", "string", "tls.version_protocol", 5, 2), by("Version", "string", "tls.version", 8, 2), records("Handshakes")},
	},
	{
		Title: "Cipher suites", Stream: handshakes, Chart: Table, Grid: Grid{X: 12, Y: 35, W: 18, H: 11},
		Columns: []Column{by("Cipher suite", "string", "tls.cipher", 30, 2), by("Version", "string", "tls.version", 1, 2), records("Handshakes")},
	},
	{
		Title: "Coverage: what became of the certificates", Stream: handshakes, Chart: Share, Grid: Grid{X: 30, Y: 35, W: 18, H: 11},
		Columns: []Column{by("Sensor", "string", "observer.name", 50, 2), by("Certificate", "string", "oddcert.certificates", 5, 2), records("Handshakes")},
	},
	{
		Title: "Frames dropped each second", Stream: stats, Query: live, Chart: Lines, Grid: Grid{X: 0, Y: 46, W: 24, H: 11},
		Columns: []Column{byTime(), by("Sensor", "string", "observer.name", 20, 2), number("Frames dropped", "max", "oddcert.stats.capture.dropped"), rate("Dropped each second", 2)},
	},
	{
		Title: "Frames each second", Stream: stats, Query: live, Chart: Lines, Grid: Grid{X: 24, Y: 46, W: 24, H: 11},
		Columns: []Column{byTime(), by("Sensor", "string", "observer.name", 20, 2), number("Frames", "max", "oddcert.stats.capture.frames"), rate("Frames each second", 2)},
	},
	{
		Title: "Sensors", Stream: stats, Query: live, Chart: Table, Grid: Grid{X: 0, Y: 57, W: 18, H: 11},
		Columns: []Column{by("Sensor", "string", "observer.name", 200, 1), moment("Last report", "max", "@timestamp"), last("Version", "string", "observer.version"),
			last("Links up", "number", "oddcert.stats.links.up")},
	},
	{
		Title: "Links that were down", Stream: stats, Query: "oddcert.stats.links.down:*", Chart: Table, Grid: Grid{X: 18, Y: 57, W: 15, H: 11},
		Columns: []Column{by("Sensor", "string", "observer.name", 100, 3), by("Interface", "string", "oddcert.stats.links.down", 20, 3),
			moment("First", "min", "@timestamp"), moment("Last", "max", "@timestamp")},
	},
	{
		Title: "Spans that were silent", Stream: stats, Query: "oddcert.stats.links.silent:*", Chart: Table, Grid: Grid{X: 33, Y: 57, W: 15, H: 11},
		Columns: []Column{by("Sensor", "string", "observer.name", 100, 3), by("Interface", "string", "oddcert.stats.links.silent", 20, 3),
			moment("First", "min", "@timestamp"), moment("Last", "max", "@timestamp")},
	},
}

// layer is the identifier of the one layer of each panel.
const layer = "layer"

// lens returns a panel's chart as Lens has it, by value.
func (p *Panel) lens() object {
	columns, order := object{}, []string{}
	groups := []string{}
	value := ""
	for i, c := range p.Columns {
		c.CustomLabel = true
		columns[columnID(i)] = c
		order = append(order, columnID(i))
		if c.Bucketed {
			groups = append(groups, columnID(i))
		}
		value = columnID(i)
	}
	var kind string
	var state object
	switch p.Chart {
	case Table:
		kind = "lnsDatatable"
		shown := []object{}
		for _, id := range order {
			shown = append(shown, object{"columnId": id})
		}
		state = object{"layerId": layer, "layerType": "data", "columns": shown}
	case Donut:
		kind = "lnsPie"
		state = object{"shape": p.Chart, "layers": []object{{
			"layerId": layer, "layerType": "data", "primaryGroups": groups, "metrics": []string{value},
			"numberDisplay": "percent", "categoryDisplay": "default", "legendDisplay": "default", "nestedLegend": false,
		}}}
	default:
		kind = "lnsXY"
		state = object{
			"legend": object{"isVisible": true, "position": "right"}, "valueLabels": "hide", "preferredSeriesType": p.Chart,
			"layers": []object{{
				"layerId": layer, "layerType": "data", "seriesType": p.Chart,
				"xAccessor": groups[0], "splitAccessor": groups[1], "accessors": []string{value},
			}},
		}
	}
	return object{
		"title": p.Title, "type": "lens", "visualizationType": kind,
		"references": []Reference{p.reference("")},
		"state": object{
			"visualization": state,
			"query":         object{"query": p.Query, "language": "lucene"},
			"filters":       []any{},
			"datasourceStates": object{"formBased": object{"layers": object{layer: object{
				"columns": columns, "columnOrder": order, "incompleteColumns": object{}, "sampling": 1,
			}}}},
			"internalReferences": []any{}, "adHocDataViews": object{},
		},
	}
}

// reference is to the data view of the panel's layer.
func (p *Panel) reference(prefix string) Reference {
	return Reference{Name: prefix + "indexpattern-datasource-layer-" + layer, Type: dataView, ID: viewOf(p.Stream)}
}

// dashboard returns the dashboard.
func dashboard() SavedObject {
	references := []Reference{}
	var panels []object
	for i := range Panels {
		p := &Panels[i]
		index := fmt.Sprintf("panel-%d", i)
		grid := p.Grid
		grid.I = index
		panels = append(panels, object{
			"type": "lens", "panelIndex": index, "gridData": grid, "title": p.Title,
			"embeddableConfig": object{"attributes": p.lens(), "enhancements": object{}},
		})
		references = append(references, p.reference(index+":"))
	}
	return SavedObject{
		ID: "oddcert-overview", Type: "dashboard", CoreVersion: "8.8.0", TypeVersion: "8.9.0", References: references,
		Attributes: object{
			"title":       "oddcert",
			"description": "Certificates on the wire: alerts, servers, expiry, and how much each sensor sees",
			"panelsJSON":  text(panels),
			"optionsJSON": text(object{"useMargins": true, "syncColors": true, "syncCursor": true, "syncTooltips": false, "hidePanelTitles": false}),
			"timeRestore": true, "timeFrom": "now-24h", "timeTo": "now", "refreshInterval": object{"pause": false, "value": 60000},
			"kibanaSavedObjectMeta": object{"searchSourceJSON": text(object{"query": object{"query": "", "language": "kuery"}, "filter": []any{}})},
			"version":               1,
		},
	}
}
