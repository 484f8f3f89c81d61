using Cbd.Host.Wanted;
using Cbd.Programs.Daemon.State;
using Xunit;

namespace Cbd.Tests.Control;

/// <summary>A record of an earlier version, of a later run of one, and of another machine.</summary>
public sealed class WritersOfARecord : LivesOfADaemon
{
    [Fact]
    public void Reads_the_record_of_the_version_before_and_sets_it_aside()
    {
        string old = Files.File("state.json");
        File.WriteAllText(old, """{"version":1,"entries":[{"transport":{"region":"/r","host":"a"}},{"device":{"region":"/r","blkdev_id":3,"backend_id":1,"backend_path":"/d","insecure":false,"read_only":false}}]}""");
        var record = NextRecord();
        Assert.Equal(2, record.Entries.Count);
        Assert.True(File.Exists(old));
        var node = new ListedNode();
        node.AddForeignBackend(0, 1, "/d", "alive");
        Assert.Equal(0, PatientDaemon.Reconciler(node, record, Logger).Pass(() => false));
        Assert.False(File.Exists(old));
        Assert.Equal(2, NextRecord().Entries.Count);
        // As it was called, whatever its id is now.
        Assert.Equal("cbd3", NextRecord().Entries[1].Device!.Name);
    }

    [Fact]
    public void Is_not_guessed_when_an_older_cbdd_ran_meanwhile()
    {
        var file = new StateFile(Files.Path);
        file.Write([]);
        File.WriteAllText(Files.File("state.json"), """{"version":1,"entries":[]}""");
        File.SetLastWriteTimeUtc(Files.File("state.json"), DateTime.UtcNow.AddMinutes(1));
        var refused = Assert.Throws<CbdException>(() => file.Read());
        Assert.Equal(CbdErrorKind.Corrupt, refused.Kind);
        Assert.Contains("state.json' of an older cbdd is newer than", refused.Message);
    }

    [Theory]
    [InlineData("same", "same", null)]
    [InlineData("id", "same", "its machine id is ")]
    [InlineData("same", "uuid", "its hardware has the uuid ")]
    [InlineData("none", "same", null)]
    [InlineData("uninitialized", "none", null)]
    public void Is_another_machines_if_a_value_that_is_known_of_both_differs(string id, string uuid, string? difference)
    {
        const string Same = "0123456789abcdef0123456789abcdef", Other = "ffffffff89abcdef0123456789abcdef";
        Write("here/etc/machine-id", Same + "\n");
        Write("here/sys/class/dmi/id/product_uuid", "01234567-89ab-cdef-0123-456789abcdef\n");
        if (id != "none")
            Write("there/etc/machine-id", id == "same" ? Same : id == "id" ? Other : "uninitialized\n");
        if (uuid != "none")
            Write("there/sys/class/dmi/id/product_uuid", uuid == "same" ? "01234567-89AB-CDEF-0123-456789ABCDEF\n" : "ffffffff-89ab-cdef-0123-456789abcdef\n");
        string? found = MachineFiles.Read(Files.File("here")).FindDifference(MachineFiles.Read(Files.File("there")));
        if (difference is null)
            Assert.Null(found);
        else
            Assert.StartsWith(difference, found);

        void Write(string path, string text)
        {
            Directory.CreateDirectory(Path.GetDirectoryName(Files.File(path))!);
            File.WriteAllText(Files.File(path), text);
        }
    }

    [Fact]
    public void Says_which_machine_wrote_it()
    {
        var machine = new MachineIdentity { MachineId = "0123456789abcdef0123456789abcdef" };
        new StateFile(Files.Path, machine).Write([]);
        var file = new StateFile(Files.Path);
        Assert.Empty(file.Read());
        Assert.Equal(machine, file.Writer);
    }
}
