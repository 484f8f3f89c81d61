using Cbd.Blocks;
using Cbd.Host;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;
using Cbd.Memory;
using Cbd.Tests.Memory;
using Xunit;

namespace Cbd.Tests.Attachments;

/// <summary>
/// The kernel gives a node's number to the next who asks: however a device ends, its link goes before its node does.
/// </summary>
public sealed class AttachedExportTests : IDisposable
{
    private readonly TemporaryDirectory _directory = new();
    private readonly AttachPlaces _places;
    private readonly Kind _kind;

    public AttachedExportTests()
    {
        _places = new AttachPlaces { Nodes = _directory.PathOf("dev"), Registry = _directory.PathOf("registry") };
        Directory.CreateDirectory(_places.Nodes);
        _kind = new Kind(IsNamed);
    }

    public void Dispose() => _directory.Dispose();

    [Fact]
    public void Is_named_while_it_serves()
    {
        using AttachedExport export = Open();
        Assert.Equal(_places.LinkOf("cbd0"), export.Uri);
        Assert.False(IsNamed());
        export.Serve(null!, 1, PollMode.Adaptive);
        Assert.True(IsNamed());
        Assert.Equal("cbd0", File.ReadAllText(_places.EntryOf("loop7")).Split(' ')[0]);
    }

    [Theory]
    [InlineData(false)]
    [InlineData(true)]
    public void A_stop_takes_the_name_first(bool force)
    {
        using AttachedExport export = Open();
        export.Serve(null!, 1, PollMode.Adaptive);
        export.Stop(force);
        Assert.Equal(["stopped unnamed"], _kind.Events);
    }

    [Fact]
    public void An_end_without_a_stop_takes_the_name_first()
    {
        using (AttachedExport export = Open())
            export.Serve(null!, 1, PollMode.Adaptive);
        Assert.Equal(["disposed unnamed"], _kind.Events);
        // The name was held until then, and is free now.
        using AttachedExport next = Open();
    }

    [Fact]
    public void A_device_that_is_in_use_after_all_keeps_its_name()
    {
        using AttachedExport export = Open();
        export.Serve(null!, 1, PollMode.Adaptive);
        _kind.IsBusy = true;
        Assert.Equal(CbdErrorKind.Busy, Assert.Throws<CbdException>(() => export.Stop(force: false)).Kind);
        Assert.True(IsNamed());
        Assert.True(File.Exists(_places.EntryOf("loop7")));
    }

    [Fact]
    public void A_start_whose_link_cannot_be_made_leaves_none()
    {
        using AttachedExport export = Open();
        File.WriteAllText(_places.LinkOf("cbd0"), "precious");
        CbdException error = Assert.Throws<CbdException>(() => export.Serve(null!, 1, PollMode.Adaptive));
        Assert.Contains("cannot be attached by fuse: cannot make the link", error.Message, StringComparison.Ordinal);
        Assert.Equal(["stopped unnamed"], _kind.Events);
        Assert.Empty(Directory.GetFiles(_places.Entries));
        Assert.Equal("precious", File.ReadAllText(_places.LinkOf("cbd0")));
    }

    private bool IsNamed() => new FileInfo(_places.LinkOf("cbd0")).LinkTarget == "/dev/loop7" || File.Exists(_places.EntryOf("loop7"));

    private AttachedExport Open() => AttachedExport.Open(
        _kind, new KernelExportOptions { Name = "cbd0", Region = Guid.Empty, Log = Assert.Fail }, _places);

    private sealed class Kind(Func<bool> isNamed) : IAttachKind
    {
        public List<string> Events { get; } = [];

        public bool IsBusy { get; set; }

        public string Name => "fuse";

        public bool IsAvailable(out string whyNot) => throw new InvalidOperationException("it was chosen");

        public IKernelAttachment Open(KernelExportOptions options) => new Attachment(this);

        public IEnumerable<KernelLeftover> FindLeftovers(Action<string> log) => [];

        public void Add(string what) => Events.Add($"{what} {(isNamed() ? "under its name" : "unnamed")}");
    }

    private sealed class Attachment(Kind kind) : IKernelAttachment
    {
        public string Node { get; private set; } = "";

        public void Serve(IBlockDevice device, int queues, PollMode mode) => Node = "/dev/loop7";

        public void Resize()
        {
        }

        public void Stop(bool force)
        {
            if (kind.IsBusy && !force)
                throw new CbdException(CbdErrorKind.Busy, "mounted");
            kind.Add("stopped");
            Node = "";
        }

        public void Dispose()
        {
            if (Node.Length > 0)
                kind.Add("disposed");
            Node = "";
        }
    }
}
