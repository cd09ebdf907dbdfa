// Package netlab makes a small network for tests: a client and a server, and a
// sensor that sees their link through a mirror port. Each is a network
// namespace of its own, which ends with the test, also when that is killed.
//
//	lab := netlab.New(t)
//	lab.Server.Command("openssl", "s_server", …).Start()
//	lab.Client.Command("openssl", "s_client", "-connect", lab.ServerIP+":443").Run()
//
// and the sensor captures on lab.SensorIface, in lab.Sensor.
//
// Namespaces are Linux's, so on other systems the package is empty, and tests
// that use it are built for Linux alone.
package netlab
