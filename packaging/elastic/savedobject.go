package elastic

// SavedObject is an object of Kibana, as its export of saved objects has it.
type SavedObject struct {
	ID         string      `json:"id"`
	Type       string      `json:"type"`
	Attributes any         `json:"attributes"`
	References []Reference `json:"references"`

	// The versions of Kibana's formats that the object is written in: newer ones
	// bring it up to date when they import it.
	CoreVersion string `json:"coreMigrationVersion"`
	TypeVersion string `json:"typeMigrationVersion"`
}

// Reference names another object.
type Reference struct {
	Name string `json:"name"`
	Type string `json:"type"`
	ID   string `json:"id"`
}

// DataView is a name for data streams.
type DataView struct {
	Title     string `json:"title"` // the streams, with wildcards
	Name      string `json:"name"`
	TimeField string `json:"timeFieldName"`
}

const dataView = "index-pattern"

// dataViews are the data views by the streams that they are for.
var dataViews = []struct{ stream, id, name string }{
	{alerts, "oddcert-alert", "oddcert: alerts"},
	{handshakes, "oddcert-handshake", "oddcert: handshakes"},
	{certificates, "oddcert-certificate", "oddcert: certificates"},
	{sightings, "oddcert-sighting", "oddcert: sightings"},
	{stats, "oddcert-stats", "oddcert: statistics of sensors"},
}

// SavedObjects returns the data views and the dashboard, each after what it refers to.
func SavedObjects() []SavedObject {
	var all []SavedObject
	for _, v := range dataViews {
		all = append(all, SavedObject{
			ID: v.id, Type: dataView, CoreVersion: "8.8.0", TypeVersion: "8.0.0",
			Attributes: DataView{Title: v.stream, Name: v.name, TimeField: "@timestamp"},
			References: []Reference{},
		})
	}
	return append(all, dashboard())
}

// viewOf is the identifier of the data view of a stream.
func viewOf(stream string) string {
	for _, v := range dataViews {
		if v.stream == stream {
			return v.id
		}
	}
	panic("elastic: no data view of " + stream)
}
