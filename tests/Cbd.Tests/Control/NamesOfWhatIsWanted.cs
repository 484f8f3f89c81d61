using Cbd.Programs.Daemon.State;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>What is wanted comes back under its names, on its disks, and keeps both from others.</summary>
public sealed class NamesOfWhatIsWanted : LivesOfADaemon
{
    [Fact]
    public void Comes_back_under_its_names_although_the_order_of_its_starts_was_another()
    {
        var daemon = PatientDaemon.Control(new ListedNode(), NextRecord());
        StartTwoDevices(daemon);
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdc" });
        daemon.Execute(Operations.StopDevice, new StopRequest { Id = 0 });
        // It gets the id that is free, and comes last in the record.
        Assert.Equal("cbd0", daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 2 }).Name);

        var node = new ListedNode();
        Assert.Equal(0, PatientDaemon.Reconciler(node, NextRecord(), Logger).Pass(() => false));
        Assert.Equal(["cbd1 on 1", "cbd0 on 2"], Names(node));
    }

    [Fact]
    public void Keeps_its_name_from_others_while_it_is_away()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var record = NextRecord();
        Assert.True(record.IsNameReserved("cbd1"));
        Assert.False(record.IsNameReserved("cbd2"));
        var daemon = PatientDaemon.Control(new ListedNode(), record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdx" });
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "cbd1" }));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.Contains("device cbd1 is wanted already, and not the same: it is on backend 1 ('/dev/sdb'), and backend 0 ('/dev/sdx') is asked for", refused.Message);
        daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Device, Name = "cbd1" });
        Assert.Equal("cbd1", daemon.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "cbd1" }).Name);
        Assert.Equal(CbdErrorKind.NotFound, Assert.Throws<CbdException>(() => daemon.Execute(Operations.Forget, new ForgetRequest { Kind = WantedThing.Device, Name = "cbd7" })).Kind);
    }

    [Theory]
    [InlineData("a", true)]
    [InlineData("data.db-1_x", true)]
    [InlineData("abcdefghijabcdefghijabcdefghija", true)]
    [InlineData("abcdefghijabcdefghijabcdefghijab", false)]
    [InlineData("", false)]
    [InlineData("0", false)]
    [InlineData("1a", false)]
    [InlineData(".a", false)]
    [InlineData("a/b", false)]
    [InlineData("a b", false)]
    [InlineData("ä", false)]
    public void Has_names_of_a_letter_and_up_to_thirty_more(string name, bool valid)
    {
        Assert.Equal(valid, ThingName.IsValid(name));
        var start = new StartDeviceOptions { Backend = 0, Name = name };
        if (valid)
            Operations.StartDevice.Check(start);
        else
            Assert.Contains($"'{name}'", Assert.Throws<CbdException>(() => Operations.StartDevice.Check(start)).Message);
    }

    [Fact]
    public void Keeps_names_of_the_machine_for_what_its_kernel_may_get_alone()
    {
        var daemon = PatientDaemon.Control(new ListedNode(), NextRecord());
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        StartDeviceOptions any = new() { Backend = 0 };
        foreach (var options in (StartDeviceOptions[])[any, any with { Attach = "ublk" }, any with { Attach = "auto", Nbd = "tcp:127.0.0.1:9" }, any with { Attach = "none" },
            any with { Nbd = "unix:/s" }, any with { Insecure = true }, any with { NbdConnections = 3 }, any with { NbdHandshakeSeconds = 3 }, any with { Tls = new TlsOptions { Certificates = "/pki" } }])
            daemon.Execute(Operations.StartDevice, options);
        Assert.Equal(["cbd0", "cbd1", "cbd2"], NextRecord().KernelNames().Order());
    }

    public static TheoryData<string> Others => ["read-only", "address", "backend"];

    [Theory]
    [MemberData(nameof(Others))]
    public void Is_not_another_thing_of_the_same_name(string what)
    {
        var before = PatientDaemon.Control(new ListedNode(), NextRecord());
        StartTwoDevices(before);
        before.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0, Name = "data" });
        var node = new ListedNode();
        var record = NextRecord();
        PatientDaemon.Reconciler(node, record, Logger).Pass(() => false);
        var daemon = PatientDaemon.Control(node, record);
        var start = new StartDeviceOptions { Backend = what == "backend" ? 1 : 0, Name = "data", ReadOnly = what == "read-only", Nbd = what == "address" ? "tcp:127.0.0.1:9" : null };
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartDevice, start));
        Assert.Equal(CbdErrorKind.Busy, refused.Kind);
        Assert.StartsWith($"device data is wanted already, and not the same: {(what == "backend" ? "it is on backend 0" : what == "address" ? "the address" : what)}", refused.Message);
        Assert.Equal(3, node.Execute(Operations.ListDevices, new ListRequest()).Count);
    }

    [Fact]
    public void Has_its_backends_under_their_names_again()
    {
        var before = PatientDaemon.Control(new ListedNode(), NextRecord());
        before.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", Name = "data" });
        var node = new ListedNode();
        var record = NextRecord();
        var daemon = PatientDaemon.Control(node, record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        // Not another disk under the name while it is away; the same one without the name is it.
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdb", Name = "data" }));
        Assert.StartsWith("'/dev/sdb' is another disk (file:/dev/sdb) than the one that is wanted (file:/dev/sda)", refused.Message);
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        Assert.Equal("data", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest())).Name);
        Assert.Equal("data", NextRecord().Entries[1].Backend!.Name);
        node = new ListedNode();
        PatientDaemon.Reconciler(node, NextRecord(), Logger).Pass(() => false);
        Assert.Equal("data", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest())).Name);
    }

    [Fact]
    public void Is_its_disk_under_its_name_by_whatever_path()
    {
        var before = PatientDaemon.Control(new ListedNode(), NextRecord());
        before.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda", Name = "data" });
        before.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 0 });
        var node = new ListedNode();
        node.Identities["/dev/sdz"] = "file:/dev/sda";
        var record = NextRecord();
        var daemon = PatientDaemon.Control(node, record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sdz", Name = "data" });
        Assert.Equal("/dev/sdz", Assert.Single(node.Execute(Operations.ListBackends, new ListRequest())).Path);
        // Only if it is proven, because nobody has said so.
        Assert.Contains($"{new StartBackendOptions { Path = "/dev/sdz", Name = "data", DiskIdentity = "file:/dev/sda", IsUnattended = true }}", node.Calls);
        Assert.Equal(("/dev/sdz", "/dev/sdz"), (NextRecord().Entries[1].Backend!.Path, NextRecord().Entries[2].Device!.BackendPath));
    }

    [Fact]
    public void Is_the_backend_that_runs_under_the_name_if_the_path_is_one_more_of_its_file()
    {
        string path = Files.File("disk"), link = Files.File("link"), other = Files.File("other");
        File.WriteAllText(path, "");
        File.WriteAllText(other, "");
        File.CreateSymbolicLink(link, path);
        var before = PatientDaemon.Control(new ListedNode(), NextRecord());
        before.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        before.Execute(Operations.StartBackend, new StartBackendOptions { Path = path, Name = "data" });
        var node = new ListedNode();
        var record = NextRecord();
        PatientDaemon.Reconciler(node, record, Logger).Pass(() => false);
        var daemon = PatientDaemon.Control(node, record);
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = other, Name = "data" }));
        Assert.StartsWith($"backend data on {path} is wanted already, and not the same: its disk is '{path}', and '{other}' is asked for", refused.Message);
        Assert.Equal(0, daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = link, Name = "data" }).BackendId);
        Assert.Single(node.Execute(Operations.ListBackends, new ListRequest()));
    }

    [Fact]
    public void Is_found_by_its_disk_under_whichever_id_and_path_that_is_served_now()
    {
        var first = new ListedNode();
        first.AddForeignBackend(0, 5, "/dev/sdq", "alive");
        var recorded = PatientDaemon.Control(first, NextRecord());
        recorded.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        recorded.Execute(Operations.StartDevice, new StartDeviceOptions { Backend = 5 });

        var node = new ListedNode();
        node.Identities["/dev/disk/by-id/q"] = "file:/dev/sdq";
        node.AddForeignBackend(0, 5, "/dev/other", "alive");
        node.AddForeignBackend(0, 7, "/dev/disk/by-id/q", "alive");
        var record = NextRecord();
        Assert.Equal(0, PatientDaemon.Reconciler(node, record, Logger).Pass(() => false));
        Assert.Equal(["cbd0 on 7"], Names(node));
        Assert.Equal((7, "/dev/disk/by-id/q"), (record.Entries[1].Device!.BackendId, record.Entries[1].Device!.BackendPath));
    }

    [Fact]
    public void Is_one_backend_although_its_disk_was_started_under_another_path()
    {
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), NextRecord()));
        var node = new ListedNode();
        node.Identities["/dev/disk/by-id/b"] = "file:/dev/sdb";
        var record = NextRecord();
        var daemon = PatientDaemon.Control(node, record);
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/disk/by-id/b" });
        Assert.Equal(["/dev/sda", "/dev/disk/by-id/b"], NextRecord().Entries.Where(e => e.Backend is not null).Select(e => e.Backend!.Path));
    }
}
