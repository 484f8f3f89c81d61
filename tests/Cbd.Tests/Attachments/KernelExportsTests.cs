using Cbd.Memory;
using Cbd.Exports.Kernel;
using Cbd.Host.Attachments;
using Xunit;

namespace Cbd.Tests.Attachments;

/// <summary>Which kind of attachment a device gets.</summary>
public sealed class KernelExportsTests
{
    private static readonly Kind s_ublk = new("ublk", "/dev/ublk-control does not exist: load the module with 'modprobe ublk_drv'");
    private static readonly Kind s_fuse = new("fuse");

    [Fact]
    public void Auto_takes_the_best_that_the_kernel_has()
    {
        Assert.Equal("ublk", Exports([s_fuse, new Kind("ublk"), new Kind("nbd")]).Choose("auto").Kind);
        Assert.Equal("nbd", Exports([s_fuse, s_ublk, new Kind("nbd")]).Choose("auto").Kind);
        Assert.Equal(("fuse", ""), Exports([s_fuse, s_ublk]).Choose("auto"));
    }

    [Fact]
    public void Auto_with_none_of_them_is_NBD_and_says_why()
    {
        (string? kind, string note) = Exports([s_ublk, new Kind("fuse", "no right")]).Choose("auto");
        Assert.Null(kind);
        Assert.Equal("no block device, NBD only (ublk: /dev/ublk-control does not exist: load the module with 'modprobe ublk_drv'; nbd: this program does not have it; fuse: no right)", note);
    }

    [Fact]
    public void None_is_NBD_without_a_word() => Assert.Equal((null, ""), Exports([s_fuse]).Choose("none"));

    [Fact]
    public void A_kind_by_name_is_that_one() => Assert.Equal(("fuse", ""), Exports([new Kind("ublk"), s_fuse]).Choose("fuse"));

    [Fact]
    public void A_kind_by_name_that_cannot_be_had_is_refused_with_what_auto_takes()
    {
        CbdException refusal = Assert.Throws<CbdException>(() => Exports([s_fuse, s_ublk]).Choose("ublk"));
        Assert.Equal(CbdErrorKind.Unsupported, refusal.Kind);
        Assert.Equal("--attach ublk is not possible here (ublk: /dev/ublk-control does not exist: load the module with 'modprobe ublk_drv'); --attach auto takes fuse", refusal.Message);
        refusal = Assert.Throws<CbdException>(() => Exports([s_ublk]).Choose("ublk"));
        Assert.EndsWith("--attach auto takes NBD over a socket", refusal.Message, StringComparison.Ordinal);
    }

    private static KernelExports Exports(IReadOnlyList<IAttachKind> kinds) => new(new AttachPlaces(), kinds);

    private sealed class Kind(string name, string whyNot = "") : IAttachKind
    {
        public string Name => name;

        public bool IsAvailable(out string reason)
        {
            reason = whyNot;
            return whyNot.Length == 0;
        }

        public IKernelAttachment Open(KernelExportOptions options) => throw new InvalidOperationException("nothing is opened by a choice");

        public IEnumerable<KernelLeftover> FindLeftovers(Action<string> log) => [];
    }
}
