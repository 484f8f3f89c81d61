using Cbd.Control.Verbs;
using Cbd.Memory;
using Cbd.Host;
using Xunit;

namespace Cbd.Tests.Control;

public sealed class CommandsOfTheAdmAttribute
{
    [Fact]
    public void Each_op_takes_its_options()
    {
        Assert.Equal(new AdmCommand { Op = "backend-start", Path = "/dev/sdb" }, AdmCommand.Parse("op=backend-start,path=/dev/sdb"));
        Assert.Equal(
            new AdmCommand { Op = "backend-start", Path = "/a=b", Backend = 4 }, AdmCommand.Parse("path=/a=b,backend_id=4,op=backend-start"));
        Assert.Equal(new AdmCommand { Op = "backend-stop", Backend = 1, Force = true }, AdmCommand.Parse("op=backend-stop,backend_id=1,force=1"));
        Assert.Equal(new AdmCommand { Op = "backend-clear", Backend = 1 }, AdmCommand.Parse("op=backend-clear,backend_id=1"));
        Assert.Equal(new AdmCommand { Op = "dev-start", Backend = 0, Queues = 2 }, AdmCommand.Parse("op=dev-start,backend_id=0,queues=2"));
        Assert.Equal(new AdmCommand { Op = "dev-stop", Device = 3 }, AdmCommand.Parse("op=dev-stop,devid=3"));
        Assert.Equal(new AdmCommand { Op = "dev-stop", Device = 3 }, AdmCommand.Parse("op=dev-stop,dev_id=3"));
    }

    [Fact]
    public void Newlines_separate_as_commas_do_and_a_last_one_is_nothing() =>
        Assert.Equal(new AdmCommand { Op = "dev-stop", Device = 3, Force = true }, AdmCommand.Parse("op=dev-stop\ndev_id=3\nforce=1\n"));

    [Theory]
    [InlineData("", "no op")]
    [InlineData("path=/dev/sdb", "no op")]
    [InlineData("op=format", "op 'format' is not known")]
    [InlineData("op=backend-start", "needs path=")]
    [InlineData("op=backend-stop", "needs backend_id=")]
    [InlineData("op=dev-start", "needs backend_id=")]
    [InlineData("op=dev-stop", "needs devid=")]
    [InlineData("op=dev-stop,dev_id=1,backend_id=1", "no option 'backend_id'")]
    [InlineData("op=backend-start,path=/d,force=1", "no option 'force'")]
    [InlineData("op=backend-start,path=/d,path=/e", "'path' is given twice")]
    [InlineData("op=dev-stop,dev_id=1,devid=1", "'devid' is given twice")]
    [InlineData("op=backend-stop,op=backend-stop,backend_id=1", "'op' is given twice")]
    [InlineData("op=backend-stop,backend_id=1,force=0", "force is '0'; it can only be 1")]
    [InlineData("op=backend-stop,backend_id=-1", "backend_id is '-1'")]
    [InlineData("op=backend-stop,backend_id=1 ", "backend_id is '1 '")]
    [InlineData("op=dev-start,backend_id=0,queues=99999999999", "queues is '99999999999'")]
    [InlineData("op=backend-start,path", "'path' is not key=value")]
    [InlineData("op=backend-start,path=", "'path=' is not key=value")]
    [InlineData("op=backend-start,=x", "'=x' is not key=value")]
    public void What_is_missing_repeated_foreign_or_no_number_is_refused(string text, string reason)
    {
        var error = Assert.Throws<CbdException>(() => AdmCommand.Parse(text));
        Assert.Equal(CbdErrorKind.Invalid, error.Kind);
        Assert.Contains(reason, error.Message);
    }

    [Fact]
    public void Starts_answer_as_the_verbs_do_and_stops_say_nothing()
    {
        var node = new ListedNode();
        node.Execute(Operations.RegisterTransport, new RegisterTransportOptions { Host = "a", Path = "/r" });
        Assert.Equal("0", AdmCommand.Parse("op=backend-start,path=/dev/sdb").Execute(node, 0));
        Assert.Equal("nbd+unix:///?socket=/run/cbd/cbd0.nbd", AdmCommand.Parse("op=dev-start,backend_id=0").Execute(node, 0));
        Assert.Null(AdmCommand.Parse("op=dev-stop,devid=0,force=1").Execute(node, 0));
        Assert.Null(AdmCommand.Parse("op=backend-clear,backend_id=0,force=1").Execute(node, 0));
        Assert.Null(AdmCommand.Parse("op=backend-stop,backend_id=0").Execute(node, 0));
        Assert.Equal(
            ["stop device 0 0 True", "clear backend 0 0 True False", "stop backend 0 0 False"], node.Calls.Skip(3));
    }
}
