using Cbd.Blocks;
using Xunit;

namespace Cbd.Tests.Disks;

/// <summary>Two identities, as texts alone: the first is a record's, the second that of a disk that is there.</summary>
public sealed class A_comparison_of_disk_identities
{
    private const string Uuid = "0123456789abcdef0123456789abcdef", OtherUuid = "fedcba9876543210fedcba9876543210";
    private const string Here = ":b0070001:d11111111", Later = ":b0070002:d11111111", Elsewhere = ":b0070003:d22222222", Nowhere = ":b0070004:-";
    private const string File = $"file:{Uuid}:12:0a0b0c0d:22222222";

    [Theory]
    // One file of one file system; its medium says nothing, or the same.
    [InlineData($"{File}:-{Here}", $"{File}:-{Here}", "Same")]
    [InlineData($"{File}:s33333333{Here}", $"{File}:s33333333{Here}", "Same")]
    [InlineData($"{File}:n33333333{Here}", $"{File}:n33333333{Here}", "Same")]
    [InlineData($"{File}:n33333333{Here}", $"{File}:-{Here}", "Same")]
    // The same after a boot of its machine; numbers of then say nothing.
    [InlineData($"{File}:-{Here}", $"{File}:-{Later}", "Same")]
    [InlineData($"{File}:s33333333{Here}", $"{File}:s33333333{Later}", "Same")]
    [InlineData($"{File}:n33333333{Here}", $"{File}:n44444444{Later}", "Same")]
    [InlineData($"{File}:n33333333{Here}", $"{File}:s44444444{Later}", "Same")]
    // On another machine: a medium that has its name in the whole world, or nothing that proves it.
    [InlineData($"{File}:w33333333{Here}", $"{File}:w33333333{Elsewhere}", "Same")]
    [InlineData($"{File}:s33333333{Here}", $"{File}:s33333333{Elsewhere}", "CannotTell, alike")]
    [InlineData($"{File}:-{Here}", $"{File}:-{Elsewhere}", "CannotTell, alike")]
    [InlineData($"{File}:-{Nowhere}", $"{File}:-:b0070005:-", "CannotTell, alike")]
    // A copy of the file system, mounted beside it or in its place.
    [InlineData($"{File}:n33333333{Here}", $"{File}:n44444444{Here}", "CannotTell, alike")]
    [InlineData($"{File}:s33333333{Here}", $"{File}:s44444444{Here}", "CannotTell, alike")]
    [InlineData($"{File}:s33333333{Here}", $"{File}:s44444444{Later}", "CannotTell, alike")]
    [InlineData($"{File}:w33333333{Here}", $"{File}:w44444444{Elsewhere}", "CannotTell, alike")]
    // Other files.
    [InlineData($"{File}:-{Here}", $"file:{OtherUuid}:12:0a0b0c0d:22222222:-{Here}", "Different")]
    [InlineData($"{File}:-{Here}", $"file:{Uuid}:13:0a0b0c0d:22222222:-{Here}", "Different")]
    [InlineData($"{File}:-{Here}", $"file:{Uuid}:12:0a0b0c0e:22222222:-{Here}", "Different")]
    [InlineData($"{File}:-{Here}", $"file:{Uuid}:12:0a0b0c0d:22222223:-{Here}", "Different")]
    [InlineData($"file:{Uuid}/256:12:0a0b0c0d:22222222:-{Here}", $"file:{Uuid}/257:12:0a0b0c0d:22222222:-{Here}", "Different")]
    [InlineData($"file:{Uuid}/256:12:0a0b0c0d:22222222:-{Here}", $"file:{Uuid}/256:12:0a0b0c0d:22222222:-{Here}", "Same")]
    // Without generations, the time of birth tells uses of an inode apart; without both, nothing does.
    [InlineData($"file:{Uuid}:12:-:22222222:-{Here}", $"file:{Uuid}:12:-:22222222:-{Here}", "Same")]
    [InlineData($"file:{Uuid}:12:-:22222222:-{Here}", $"file:{Uuid}:12:-:22222223:-{Here}", "Different")]
    [InlineData($"file:{Uuid}:12:0a0b0c0d:-:-{Here}", $"file:{Uuid}:12:0a0b0c0d:-:-{Here}", "Same")]
    [InlineData($"file:{Uuid}:12:-:-:-{Here}", $"file:{Uuid}:12:-:-:-{Here}", "CannotTell, alike")]
    // Without a UUID, the device says which file system it is, within a boot.
    [InlineData($"file:0,41:12:-:22222222:-{Here}", $"file:0,41:12:-:22222222:-{Here}", "Same")]
    [InlineData($"file:0,41:12:-:22222222:-{Here}", $"file:0,42:12:-:22222222:-{Here}", "CannotTell, alike")]
    [InlineData($"file:0,41:12:-:22222222:-{Here}", $"file:0,41:12:-:22222222:-{Later}", "CannotTell, alike")]
    [InlineData($"file:0,41:12:-:22222222:-{Here}", $"file:0,41:13:-:22222222:-{Later}", "CannotTell, alike")]
    [InlineData($"file:0,41:12:-:22222222:-{Here}", $"file:0,41:13:-:22222223:-{Later}", "Different")]
    [InlineData($"file:0,41:12:-:-:-{Here}", $"file:0,41:12:-:-:-{Later}", "CannotTell, alike")]
    [InlineData($"file:0,41:12:-:-:-{Here}", $"file:0,41:12:-:-:-{Elsewhere}", "CannotTell")]
    [InlineData($"file:254,1:12:0a0b0c0d:22222222:-{Here}", $"{File}:-{Later}", "CannotTell, alike")]
    public void Tells_files_apart(string record, string disk, string expected) => Check(record, disk, expected);

    [Theory]
    // Something names it.
    [InlineData($"block:wwid=naa.5000c5:-{Here}", $"block:wwid=naa.5000c5:-{Elsewhere}", "Same")]
    [InlineData($"block:wwid=eui.0025385:-{Here}", $"block:wwid=eui.0025385:-{Elsewhere}", "Same")]
    [InlineData($"block:wwid=uuid.0123:-{Here}", $"block:wwid=uuid.0123:-{Elsewhere}", "Same")]
    [InlineData($"block:wwid=naa.5000c5:-{Here}", $"block:wwid=naa.5000c6:-{Here}", "Different")]
    [InlineData($"block:serial=QM00001:-{Here}", $"block:serial=QM00001:-{Here}", "Same")]
    [InlineData($"block:serial=QM00001:-{Here}", $"block:serial=QM00001:-{Later}", "Same")]
    // Virtual machines have the same serials, and copies of one the same volumes.
    [InlineData($"block:serial=QM00001:-{Here}", $"block:serial=QM00001:-{Elsewhere}", "CannotTell, alike")]
    [InlineData($"block:dm=LVM-0123:-{Here}", $"block:dm=LVM-0123:-{Elsewhere}", "CannotTell, alike")]
    [InlineData($"block:wwid=eui.5254000000000001:-{Here}", $"block:wwid=eui.5254000000000001:-{Elsewhere}", "CannotTell, alike")]
    // Parts of it.
    [InlineData($"block:serial=A:p1@2048{Here}", $"block:serial=A:p1@2048{Later}", "Same")]
    [InlineData($"block:serial=A:p1@2048{Here}", $"block:serial=A:p2@4096{Here}", "Different")]
    [InlineData($"block:serial=A:p1@2048{Here}", $"block:serial=A:p1@4096{Later}", "Different")]
    [InlineData($"block:serial=A:p1@2048{Here}", $"block:serial=A:-{Here}", "Different")]
    // Nothing names it: number and sequence within a boot.
    [InlineData($"block:dev=254,16,5:-{Here}", $"block:dev=254,16,5:-{Here}", "Same")]
    [InlineData($"block:dev=254,16,5:-{Here}", $"block:dev=254,16,6:-{Here}", "CannotTell, alike")]
    [InlineData($"block:dev=254,16,-:-{Here}", $"block:dev=254,16,-:-{Here}", "CannotTell, alike")]
    [InlineData($"block:dev=254,16,5:-{Here}", $"block:dev=254,32,6:-{Here}", "Different")]
    [InlineData($"block:dev=254,16,5:-{Here}", $"block:dev=254,16,5:-{Later}", "CannotTell, alike")]
    [InlineData($"block:dev=254,16,5:-{Here}", $"block:dev=254,32,5:-{Later}", "CannotTell")]
    [InlineData($"block:dev=254,16,5:-{Here}", $"block:dev=254,16,5:-{Elsewhere}", "CannotTell")]
    // The kernel has learned a name since.
    [InlineData($"block:dev=254,16,5:-{Here}", $"block:serial=A:-{Later}", "CannotTell")]
    [InlineData($"block:dev=254,16,5:-{Here}", $"block:serial=A:-{Here}", "Different")]
    [InlineData($"block:serial=A:-{Here}", $"file:{Uuid}:12:0a0b0c0d:22222222:-{Here}", "Different")]
    public void Tells_block_devices_apart(string record, string disk, string expected) => Check(record, disk, expected);

    [Theory]
    [InlineData("memory:0123", "memory:0123", "Same")]
    [InlineData("memory:0123", "memory:4567", "Different")]
    [InlineData("memory", "memory:4567", "Different")]
    [InlineData("memory:0123", "null:0123", "Different")]
    [InlineData("something:new", "something:new", "Same")]
    [InlineData("something:new", "something:other", "Different")]
    // What hostile hosts may put there.
    [InlineData($"file:{Uuid}:12:0a0b0c0d:22222222::b0070001:-", $"{File}:-{Here}", "Different")]
    [InlineData("file:0,1,2:12:0a0b0c0d:22222222:-:b0070001:-", "file:0,1,2:12:0a0b0c0d:22222222:-:b0070001:-", "Same")]
    [InlineData("block:dev=:-:b0070001:-", "block:dev=:-:b0070001:-", "Same")]
    [InlineData("block:dev=1:-:b0070001:-", $"block:dev=254,16,5:-{Here}", "Different")]
    [InlineData("file", "file", "Same")]
    [InlineData(":", "file", "Different")]
    public void Takes_what_it_does_not_know_as_a_whole(string record, string disk, string expected) => Check(record, disk, expected);

    [Theory]
    [InlineData("file:254:1:12:0a0b0c0d", 7UL, "Same")]
    [InlineData("file:254:1:12:0a0b0c0d", 8UL, "CannotTell, alike")]
    [InlineData("file:254:2:12:0a0b0c0d", 8UL, "CannotTell, alike")]
    [InlineData("file:254:1:12:-", 7UL, "CannotTell")]
    [InlineData("file:254:1:13:0a0b0c0d", 7UL, "Different")]
    [InlineData("file:254:1:12:0a0b0c0e", 7UL, "Different")]
    [InlineData("file:254:1:12:what", 7UL, "Different")]
    public void Takes_a_file_in_the_words_of_the_version_before(string record, ulong life, string expected) =>
        Check(new DiskIdentity(record, "", life), new DiskIdentity($"{File}:-{Here}", "file:254:1:12:0a0b0c0d", 7), expected);

    [Theory]
    [InlineData("block:254:16:0123456789abcdef", 7UL, "dev=254,16,5", "Same")]
    [InlineData("block:254:16:0123456789abcdef", 8UL, "dev=254,16,5", "CannotTell, alike")]
    [InlineData("block:254:16:0123456789abcdef", 7UL, "dev=254,16,-", "CannotTell, alike")]
    [InlineData("block:254:32:0123456789abcdef", 7UL, "dev=254,16,5", "CannotTell")]
    [InlineData("block:254:16:0123456789abcdee", 7UL, "dev=254,16,5", "Different")]
    public void Takes_a_block_device_in_the_words_of_the_version_before(string record, ulong life, string name, string expected) =>
        Check(new DiskIdentity(record, "", life), new DiskIdentity($"block:{name}:-{Here}", "block:254:16:0123456789abcdef", 7), expected);

    [Fact]
    public void Is_not_certain_of_a_file_that_the_version_before_could_not_tell_from_a_later_one() =>
        Check(new DiskIdentity("file:0:41:12:-", "", 7), new DiskIdentity($"file:{Uuid}:12:-:22222222:-{Here}", "file:0:41:12:-", 7), "CannotTell, alike");

    [Fact]
    public void Knows_disks_that_begin_anew()
    {
        Assert.True(DiskIdentity.BeginsAnew("memory", "memory:0123"));
        Assert.True(DiskIdentity.BeginsAnew("null:0123", "null:4567"));
        Assert.False(DiskIdentity.BeginsAnew("memory:0123", "null:4567"));
        Assert.False(DiskIdentity.BeginsAnew($"{File}:-{Here}", $"{File}:-{Later}"));
    }

    [Fact]
    public void Has_texts_that_fit_the_field_in_which_they_are_stored()
    {
        string file = new FileDiskName($"{Uuid}/{ulong.MaxValue}", ulong.MaxValue, "0a0b0c0d", "22222222", "w33333333", "b0070001", "d11111111").ToString();
        string device = new BlockDiskName($"serial={new string('s', 64)}", $"p65535@{long.MaxValue}", "b0070001", "d11111111").ToString();
        Assert.All([file, device], text => Assert.InRange(text.Length, 1, DiskIdentity.MaxBytes));
        Assert.Equal(DiskIdentity.MaxBytes, Cbd.Protocol.Format.BackendBody.MaxIdentityBytes);
        Assert.True(FileDiskName.TryParse(file, out FileDiskName? parsed));
        Assert.Equal(file, parsed.ToString());
        Assert.True(BlockDiskName.TryParse(device, out BlockDiskName? parsedDevice));
        Assert.Equal(device, parsedDevice.ToString());
    }

    private static void Check(string record, string disk, string expected)
    {
        Check(new DiskIdentity(record), new DiskIdentity(disk), expected);
        // Which of the two is the record matters for words of the version before alone.
        Check(new DiskIdentity(disk), new DiskIdentity(record), expected);
    }

    private static void Check(DiskIdentity record, DiskIdentity disk, string expected)
    {
        DiskComparison comparison = DiskIdentity.Compare(record, disk);
        Assert.Equal(expected, comparison == DiskComparison.CannotTell && DiskIdentity.MayBe(record, disk) ? $"{comparison}, alike" : comparison.ToString());
    }
}
