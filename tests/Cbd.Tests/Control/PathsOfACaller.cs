using Cbd.Control.Api;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class Paths_of_a_caller : IDisposable
{
    private readonly string _directory = Directory.CreateTempSubdirectory("cbd-paths.").FullName;

    public void Dispose() => Directory.Delete(_directory, recursive: true);

    [Theory]
    [InlineData("/a/../b", "/a/../b")]
    [InlineData("/a//b/./c", "/a/b/c")]
    [InlineData("/a/disk/", "/a/disk/")]
    [InlineData("/a/disk/.", "/a/disk/")]
    [InlineData("/..", "/..")]
    [InlineData("/", "/")]
    [InlineData("//", "/")]
    [InlineData("/a/...", "/a/...")]
    [InlineData("/a b/\u00e9", "/a b/\u00e9")]
    [InlineData("memory:16M", "memory:16M")]
    [InlineData("null:1G", "null:1G")]
    [InlineData("", "")]
    public void Say_what_they_said(string typed, string path) => Assert.Equal(path, PathText.FromCaller(typed));

    [Theory]
    [InlineData("disk", "disk")]
    [InlineData("./disk", "disk")]
    [InlineData("../x/disk", "../x/disk")]
    [InlineData("link/../disk", "link/../disk")]
    public void Are_under_the_working_directory(string typed, string rest) =>
        Assert.Equal($"{Environment.CurrentDirectory}/{rest}", PathText.FromCaller(typed));

    [Fact]
    public void Of_sockets_alone_are_made_absolute_in_addresses()
    {
        Assert.Equal("unix:/a/../s", PathText.AddressFromCaller("unix:/a/../s"));
        Assert.Equal("tcp:localhost:10809", PathText.AddressFromCaller("tcp:localhost:10809"));
    }

    [Fact]
    public void With_bytes_that_are_no_text_are_refused() =>
        Assert.Contains("not UTF-8", Assert.Throws<CbdException>(() => PathText.FromCaller("/a/\uFFFD")).Message, StringComparison.Ordinal);

    /// <summary>As the kernel finds them: what follows a link follows where it leads.</summary>
    [Theory]
    [InlineData("link/../state", "real/state")]
    [InlineData("link/../../state", "state")]
    [InlineData("plain/../state", "state")]
    [InlineData("relative/../state", "real/state")]
    [InlineData("chain/../state", "real/state")]
    [InlineData("nowhere/../state", "state")]
    [InlineData("link/state", "link/state")]
    [InlineData("plain/state/", "plain/state")]
    public void To_directories_lead_where_the_kernel_says(string typed, string reached)
    {
        Directory.CreateDirectory($"{_directory}/real/sub");
        Directory.CreateDirectory($"{_directory}/plain");
        File.CreateSymbolicLink($"{_directory}/link", $"{_directory}/real/sub");
        File.CreateSymbolicLink($"{_directory}/relative", "./real/sub");
        File.CreateSymbolicLink($"{_directory}/chain", "link");
        Assert.Equal($"{_directory}/{reached}", PathText.DirectoryFromCaller($"{_directory}/{typed}"));
    }

    [Fact]
    public void To_directories_through_links_without_end_are_refused()
    {
        File.CreateSymbolicLink($"{_directory}/loop", "loop");
        Assert.Contains("symbolic links", Assert.Throws<CbdException>(() => PathText.DirectoryFromCaller($"{_directory}/loop/../x")).Message, StringComparison.Ordinal);
    }
}
