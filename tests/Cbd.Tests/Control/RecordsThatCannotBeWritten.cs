using Cbd.Programs.Daemon.State;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>Nothing is started that cannot be recorded; what has happened all the same is written later.</summary>
public sealed class RecordsThatCannotBeWritten : LivesOfADaemon
{
    /// <summary>What a write of the record needs is in its way.</summary>
    private string BlockRecord() => Directory.CreateDirectory(new StateFile(Files.Path).FilePath + ".new").FullName;

    [Fact]
    public void Is_written_again_when_there_is_room()
    {
        var record = NextRecord();
        StartTwoDevices(PatientDaemon.Control(new ListedNode(), record));
        string block = BlockRecord();
        record.SetFailed("cbd1", "acknowledged writes may be lost");
        Assert.True(record.IsDirty);
        Assert.DoesNotContain(NextRecord().Entries, e => e.Failed is not null);
        Directory.Delete(block);
        using var reconciler = PatientDaemon.Reconciler(new ListedNode(), record, Logger);
        reconciler.Pass(() => false);
        Assert.False(record.IsDirty);
        Assert.Contains(NextRecord().Entries, e => e.Failed is not null);
    }

    [Fact]
    public void Starts_nothing_that_it_cannot_record()
    {
        var node = new ListedNode();
        var daemon = PatientDaemon.Control(node, NextRecord());
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        string block = BlockRecord();
        var refused = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" }));
        Assert.Contains("nothing is started, because it cannot be recorded", refused.Message);
        Assert.Single(node.Calls);
        Directory.Delete(block);
        daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" });
        Assert.Equal(2, new StateFile(Files.Path).Read().Count);
    }

    [Fact]
    public void Takes_back_what_was_started_and_cannot_be_confirmed()
    {
        var node = new ListedNode();
        string? block = null;
        var daemon = PatientDaemon.Control(
            new InterceptedControl(node, request =>
            {
                if (request is StartBackendOptions)
                    block = BlockRecord();
                return request;
            }), NextRecord());
        daemon.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "alpha", Path = "/r" });
        Assert.Throws<CbdException>(() => daemon.Execute(Operations.StartBackend, new StartBackendOptions { Path = "/dev/sda" }));
        Assert.Empty(node.Execute(Operations.ListBackends, new ListRequest()));
        Directory.Delete(block!);
        // The file still has the intent, which the next life drops.
        Assert.Single(NextRecord().Entries);
    }

    [Fact]
    public void Stops_what_it_cannot_record_and_says_that_it_may_come_back()
    {
        var node = new ListedNode();
        var daemon = PatientDaemon.Control(node, NextRecord());
        StartTwoDevices(daemon);
        string block = BlockRecord();
        var warned = Assert.Throws<CbdException>(() => daemon.Execute(Operations.StopDevice, new StopRequest { Id = 1 }));
        Assert.StartsWith("it is stopped, but that is not recorded", warned.Message);
        Assert.Equal(["cbd0 on 0"], Names(node));
        Directory.Delete(block);
        // The next change that can be written has it.
        daemon.Execute(Operations.StopDevice, new StopRequest { Id = 0 });
        Assert.Equal(3, NextRecord().Entries.Count);
    }

    [Fact]
    public void Has_a_reserve_that_only_a_full_disk_uses_up()
    {
        var file = new StateFile(Files.Path);
        file.Reserve();
        string reserve = Files.File("wanted.reserve");
        Assert.Equal(256 << 10, new FileInfo(reserve).Length);
        string block = BlockRecord();
        Assert.Throws<CbdException>(() => file.Write([]));
        Assert.True(File.Exists(reserve));
        Directory.Delete(block);
        // A change that finds it used up takes it again.
        File.Delete(reserve);
        file.Write([]);
        Assert.Equal(256 << 10, new FileInfo(reserve).Length);
    }
}
