using Cbd.Memory;
using Xunit;

namespace Cbd.Tests.Memory;

public sealed class The_memory_of_this_machine : IDisposable
{
    private readonly TemporaryDirectory _directory = new();

    public void Dispose() => _directory.Dispose();

    private void Limit(string group, string file, string text)
    {
        Directory.CreateDirectory(_directory.PathOf(group));
        File.WriteAllText(_directory.PathOf($"{group}/{file}"), text + "\n");
    }

    [Fact]
    public void Is_what_the_kernel_says() => Assert.Equal(16317 * 1024L, MachineMemory.ReadMachine(["MemFree:  12 kB", "MemTotal:       16317 kB"]));

    [Fact]
    public void Is_limited_by_each_group_above_a_process()
    {
        Limit("a/b", "memory.max", "max");
        Limit("a", "memory.max", "4096000");
        Assert.Equal(4096000, MachineMemory.ReadGroups(["0::/a/b"], _directory.PathOf(".")));
        Limit("a/b", "memory.max", "4096");
        Assert.Equal(4096, MachineMemory.ReadGroups(["0::/a/b"], _directory.PathOf(".")));
        Assert.Null(MachineMemory.ReadGroups(["0::/"], _directory.PathOf(".")));
    }

    [Fact]
    public void Is_limited_in_a_namespace_of_groups_by_what_is_at_its_top()
    {
        Limit(".", "memory.max", "8192");
        Assert.Equal(8192, MachineMemory.ReadGroups(["0::/../outside"], _directory.PathOf(".")));
    }

    [Fact]
    public void Is_limited_by_groups_of_the_first_version()
    {
        Limit("memory/c", "memory.limit_in_bytes", "12288");
        Assert.Equal(12288, MachineMemory.ReadGroups(["5:cpu:/d", "4:memory,hugetlb:/c"], _directory.PathOf(".")));
    }

    [Fact]
    public void Can_be_read_here() => Assert.InRange(MachineMemory.LimitBytes!.Value, 1 << 20, 1L << 50);
}
